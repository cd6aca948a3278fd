"""Named configurations for the choices on which papers and codes disagree.

A preset is a set of differences from the defaults; a config file and `--set` come on top of it.
"""

from typing import Any

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    # the method as its authors ran it, with the documented defaults
    "saliency-prompt": {},
    # Free Mask as published with FreeSOLO: the same steps on the larger backbone
    "freesolo": {"features": {"weights": "densecl-r101-in1k-200ep"}},
    # the CVPR 2023 text taken at its word: one pooled grid, dot products, one range per image (footnote 3),
    # plain mask NMS, and no filter that the text does not mention
    "paper-literal": {
        "saliency": {"seeding": "grid", "similarity": "dot"},
        "normalize": {"scope": "image"},
        "nms": {"kind": "greedy"},
        "filters": {"min_score": None, "min_center_y": None, "max_width": None},
    },
    # the settings of the authors' later code base: stretched input, a lower centre filter, never an empty image
    "uplvp": {
        "decode": {"keep_ratio": False},
        "filters": {"min_center_y": 0.1, "max_width": None, "keep_best": True},
    },
}
