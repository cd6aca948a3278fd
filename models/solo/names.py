"""Parameter names of mmdetection and of the authors' code, and what they are called here.

Both write a convolution and its norm as `NAME.conv.weight`, `NAME.gn.weight`; here the norm is `NAME.norm`.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from .options import Options

Rules = tuple[tuple[str, str], ...]  # of a pattern for the start of a name, and what it becomes

_SHARED: Rules = (
    (r"backbone\.", "backbone."),
    (r"neck\.lateral_convs\.(\d+)\.conv\.", r"pyramid.fpn.inner_blocks.\1.0."),
    (r"neck\.fpn_convs\.(\d+)\.conv\.", r"pyramid.fpn.layer_blocks.\1.0."),
)
_CLASSES: Rules = (
    (r"(?:cls|cate)_convs\.", "head.class_tower."),
    (r"(?:conv_cls|d?solo_cate)\.", "head.classes."),
)
_MASKS: dict[str, Rules] = {
    "solo": (
        (r"(?:mask|ins)_convs\.", "head.mask_tower."),
        (r"(?:conv_mask|solo_ins)_list\.", "head.masks."),
    ),
    "decoupled": (
        (r"(?:mask|ins)_convs(?:_x)?\.", "head.mask_towers.0."),
        (r"(?:mask|ins)_convs_y\.", "head.mask_towers.1."),
        (r"(?:conv_mask|dsolo_ins)_list_x\.", "head.columns."),
        (r"(?:conv_mask|dsolo_ins)_list_y\.", "head.rows."),
    ),
    "dynamic": (
        (r"kernel_convs\.", "head.kernel_tower."),
        (r"(?:conv|solo)_kernel\.", "head.kernels."),
        (r"mask_feat(?:ure)?_head\.convs_all_levels\.(\d)\.conv(\d)\.", r"head.feature.levels.\1.\2."),
        (r"mask_feat(?:ure)?_head\.conv_pred(?:\.0)?\.", "head.feature.last."),
    ),
}
_HEADS = ("mask_head.", "bbox_head.")  # mmdetection, the authors
_INNER = (("gn", "norm"), ("conv_offset_mask", "offset"), ("conv_offset", "offset"))
_OFFSET = re.compile(r"\.(conv\d)_offset\.")  # beside its convolution rather than in it


def rename(name: str, options: Options) -> str | None:
    """What a parameter of a peer's file is called here; None for one that this model lacks."""
    for prefix in _HEADS:
        name = name.removeprefix(prefix)
    for pattern, ours in (*_SHARED, *_CLASSES, *_MASKS[options.head]):
        found = re.match(pattern, name)
        if found:
            rest = _OFFSET.sub(r".\1.offset.", name[found.end() :])
            parts = [dict(_INNER).get(part, part) for part in rest.split(".")]
            return found.expand(ours) + ".".join(parts)
    return None


def rename_state(state: Mapping[str, Tensor], options: Options) -> tuple[dict[str, Tensor], list[str]]:
    """A peer's parameters under our names and meanings, and the names that this model lacks.

    Modulation is 2 sigmoid here, so that weights that were trained under sigmoid are halved; offsets without
    modulation get one that is 1.
    """
    renamed, unknown = {}, []
    for name, value in state.items():
        ours = rename(name, options)
        if ours is None:
            unknown.append(name)
        else:
            renamed[ours] = value
    for name in [name for name in renamed if name.endswith(".offset.weight")]:
        conv = name.removesuffix("offset.weight")
        points = renamed[conv + "weight"].shape[2:].numel()
        if len(renamed[name]) == 3 * points:
            renamed[conv + "weight"] = renamed[conv + "weight"] / 2
        else:
            for part in ("weight", "bias"):
                one = renamed[f"{conv}offset.{part}"]
                renamed[f"{conv}offset.{part}"] = torch.cat([one, one.new_zeros((points, *one.shape[1:]))])
    return renamed, unknown
