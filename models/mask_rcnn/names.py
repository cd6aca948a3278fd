"""From the names of torchvision's Mask R-CNN to ours, whose backbone and pyramid stand beside each other.

Pure functions on state dicts.
"""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ...schemas.errors import UserError
from ..backbones.state_dict import unwrap

_RENAMED = (
    (re.compile(r"^module\."), ""),
    (re.compile(r"^backbone\.body\."), "backbone."),
    (re.compile(r"^backbone\.fpn\."), "fpn."),
    # before torchvision 0.13 a convolution of these had no block around it
    (re.compile(r"^(fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$"), r"\1.0.\2"),
    (re.compile(r"^(rpn\.head\.conv)\.(weight|bias)$"), r"\1.0.0.\2"),
)
_OLD_MASK_CONV = re.compile(r"^roi_heads\.mask_head\.mask_fcn(\d+)\.(weight|bias)$")
_PER_CLASS = re.compile(r"^roi_heads\.(?:box_predictor\.(cls_score|bbox_pred)|mask_predictor\.mask_fcn_logits)\.")
EPSILON = 1e-5  # of batch normalisation, as torch has it


def rename(raw: Mapping[str, object]) -> dict[str, Tensor]:
    """The tensors of a torchvision Mask R-CNN checkpoint, of any version, under our names."""
    renamed = {}
    for name, value in unwrap(raw).items():
        for pattern, replacement in _RENAMED:
            name = pattern.sub(replacement, name)  # noqa: PLW2901
        if old := _OLD_MASK_CONV.match(name):
            name = f"roi_heads.mask_head.{int(old[1]) - 1}.0.{old[2]}"  # noqa: PLW2901
        renamed[name] = value
    return renamed


def choose_classes(state: Mapping[str, Tensor], rows: Sequence[int]) -> dict[str, Tensor]:
    """Only those rows of every layer that has one per class; row 0 is the background.

    Torchvision's COCO weights have a row per category id, up to 90 and with gaps: give 0 and the ids that are used.
    Raises UserError if there is no such row.
    """
    chosen = dict(state)
    for name, value in state.items():
        if not (found := _PER_CLASS.match(name)):
            continue
        each = value.view(-1, 4, *value.shape[1:]) if found[1] == "bbox_pred" else value
        if len(each) == 1:  # a mask for all classes
            continue
        if bad := [row for row in rows if not 0 <= row < len(each)]:
            raise UserError(f"{name} has {len(each)} classes and none of number {bad[0]}: choose others.")
        picked = each[torch.tensor(rows)]
        chosen[name] = picked.flatten(0, 1) if found[1] == "bbox_pred" else picked
    return chosen


def with_epsilon(state: Mapping[str, Tensor], epsilon: float) -> dict[str, Tensor]:
    """Running variances that make ours the normalisation of a model whose epsilon was another.

    The released `maskrcnn_resnet50_fpn` of COCO (V1) was trained with 0, which its file does not say.
    """
    return {
        name: value + (epsilon - EPSILON) if name.endswith("running_var") else value for name, value in state.items()
    }


def fit(state: Mapping[str, Tensor], own: Mapping[str, Tensor], fresh: Sequence[str] = ()) -> dict[str, Tensor]:
    """What of `state` a model with the state `own` takes: all of it, but those of the prefixes `fresh` that differ.

    Raises UserError that lists what is missing, left over or of another shape; `num_batches_tracked` may be absent.
    """
    may_differ = tuple(fresh)
    misshapen = [name for name, value in state.items() if name in own and own[name].shape != value.shape]
    trouble = {
        "missing": [name for name in own if name not in state and not name.endswith("num_batches_tracked")],
        "left over": [name for name in state if name not in own],
        "of another shape": [
            f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}" for name in misshapen
        ],
    }
    trouble = {kind: [one for one in names if not one.startswith(may_differ)] for kind, names in trouble.items()}
    if wrong := [f"{len(names)} {kind} (first {names[0]})" for kind, names in trouble.items() if names]:
        raise UserError(
            f"The weights do not fit this Mask R-CNN: {'; '.join(wrong)}; give those of one with the same heads."
        )
    return {name: value for name, value in state.items() if name in own and name not in misshapen}
