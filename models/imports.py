"""How the tensors of each model come in: the table of names, and what can be read off their shapes.

Pure functions on state dicts. What no shape tells (heads of attention, groups of norms, strides of the backbone) has
the published value, unless the user says otherwise.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from ..schemas.training.solo import SOLO_OPTIONS
from .mask_rcnn import names as mask_rcnn
from .queries.knet.names import OFFICIAL
from .queries.mask2former.names import DETECTRON2, TRANSFORMERS
from .queries.queryinst.names import MMDETECTION
from .renaming import Rules, rename
from .solo.names import rename_state
from .solo.options import Options

State = Mapping[str, Tensor]
Renamed = tuple[dict[str, Tensor], list[str]]  # under our names; the names that no rule knows
Setting = int | str | bool | list[int]
HEADS, LEVELS = 8, 3  # of Mask2Former's deformable attention
_SOLO = re.compile(r"(?:mask_head\.|bbox_head\.)?(?:cls_convs|cate_convs|conv_cls|d?solo_cate)\.")


@dataclass(frozen=True, slots=True)
class Source:
    """One model: what its files look like (`telling`, a pattern that some name begins with), and how they are read.

    `settings` and `classes` read a state dict under our names; a KeyError or IndexError says that it is of another
    model.
    """

    telling: re.Pattern[str]
    rename: Callable[[State], Renamed]
    settings: Callable[[State], dict[str, Setting]]
    classes: Callable[[State], int]


def count(state: State, pattern: str) -> int:
    """How many numbers stand where the pattern has its group; they must go from 0."""
    numbers = {int(found[1]) for name in state if (found := re.match(pattern, name))}
    return max(numbers) + 1 if numbers else 0


def _by_table(state: State, rules: Rules) -> Renamed:
    """What a table leaves out is not left out in silence."""
    return rename(state, [(pattern, ours) for pattern, ours in rules if ours is not None])


def _knet(state: State) -> Renamed:
    renamed, unknown = _by_table(state, OFFICIAL)
    if "kernels" in renamed:
        renamed["kernels"] = renamed["kernels"].flatten(1)
    return renamed, unknown


def _knet_settings(state: State) -> dict[str, Setting]:
    queries, channels = state["kernels"].shape
    hidden = len(state["stages.0.feed_forward.0.weight"])
    return {"queries": queries, "channels": channels, "stages": count(state, r"stages\.(\d+)\."), "hidden": hidden}


def _queryinst_settings(state: State) -> dict[str, Setting]:
    queries, channels = state["query_features"].shape
    return {
        "queries": queries,
        "channels": channels,
        "stages": count(state, r"stages\.(\d+)\."),
        "hidden": len(state["stages.0.feed_forward.0.weight"]),
        "dynamic_channels": len(state["stages.0.dynamic.norm_in.weight"]),
    }


def _mask2former(state: State) -> Renamed:
    authors = any(name.startswith("sem_seg_head.") for name in state)
    return _by_table(state, DETECTRON2 if authors else TRANSFORMERS)


def _mask2former_settings(state: State) -> dict[str, Setting]:
    queries, channels = state["query_features"].shape
    return {
        "queries": queries,
        "channels": channels,
        "stages": count(state, r"layers\.(\d+)\."),
        "hidden": len(state["layers.0.feed_forward.0.weight"]),
        "encoder_stages": count(state, r"pixel_decoder\.layers\.(\d+)\."),
        "encoder_hidden": len(state["pixel_decoder.layers.0.feed_forward.0.weight"]),
        "encoder_points": len(state["pixel_decoder.layers.0.attention.weights.weight"]) // (HEADS * LEVELS),
    }


def _mask_rcnn_settings(state: State) -> dict[str, Setting]:
    alone = len(state["roi_heads.mask_predictor.mask_fcn_logits.weight"]) == 1
    return {
        "channels": len(state["fpn.inner_blocks.0.0.weight"]),
        "hidden": len(state["roi_heads.box_head.fc6.weight"]),
        "mask_convs": count(state, r"roi_heads\.mask_head\.(\d+)\."),
        "mask_head": "agnostic" if alone else "per_class",
    }


def _solo(host: str) -> Source:
    head = Options(**SOLO_OPTIONS[host]).head  # type: ignore[arg-type]

    def settings(state: State) -> dict[str, Setting]:
        found: dict[str, Setting] = {
            "channels": len(state["pyramid.fpn.inner_blocks.0.0.weight"]),
            "width": len(state["head.class_tower.0.conv.weight"]),
            "depth": count(state, r"head\.class_tower\.(\d+)\."),
            "deform_backbone": any(re.match(r"backbone\..*\.offset\.", name) for name in state),
            "deform": _deform(state),
        }
        match head:
            case "solo":
                levels = count(state, r"head\.masks\.(\d+)\.")
                found["grids"] = [round(len(state[f"head.masks.{i}.weight"]) ** 0.5) for i in range(levels)]
            case "decoupled":
                levels = count(state, r"head\.columns\.(\d+)\.")
                found["grids"] = [len(state[f"head.columns.{i}.weight"]) for i in range(levels)]
                found["shared_tower"] = "head.mask_towers.1.0.conv.weight" not in state
            case "dynamic":
                wide = len(state["head.feature.last.conv.weight"])
                found["kernel_channels"] = wide
                found["kernel_size"] = round((len(state["head.kernels.weight"]) / wide) ** 0.5)
                found["feature_width"] = len(state["head.feature.levels.0.0.conv.weight"])
                found["coord_order"] = "code"
        return found

    return Source(
        _SOLO,
        lambda state: rename_state(state, Options(head=head)),
        settings,
        lambda state: len(state["head.classes.weight"]),
    )


def _deform(state: State) -> str:
    layers = count(state, r"head\.class_tower\.(\d+)\.")
    bent = [f"head.class_tower.{i}.conv.offset.weight" in state for i in range(layers)]
    if not any(bent):
        return "none"
    return "all" if all(bent) else "last"


SOURCES: dict[str, Source] = {
    "knet": Source(
        re.compile(r"rpn_head\.init_kernels\."),
        _knet,
        _knet_settings,
        lambda state: len(state["stages.0.classes.weight"]),
    ),
    "queryinst": Source(
        re.compile(r"rpn_head\.init_proposal_features\."),
        lambda state: _by_table(state, MMDETECTION),
        _queryinst_settings,
        lambda state: len(state["stages.0.classes.weight"]),
    ),
    "mask2former": Source(
        re.compile(r"model\.pixel_level_module\.|sem_seg_head\.pixel_decoder\."),
        _mask2former,
        _mask2former_settings,
        lambda state: len(state["head.classes.weight"]) - 1,
    ),
    "maskrcnn": Source(
        re.compile(r"(?:module\.)?roi_heads\.box_predictor\."),
        lambda state: (mask_rcnn.rename(state), []),
        _mask_rcnn_settings,
        lambda state: len(state["roi_heads.box_predictor.cls_score.weight"]) - 1,
    ),
    **{host: _solo(host) for host in ("solo", "decoupled-solo", "decoupled-solo-light", "solov2", "solov2-light")},
}


def recognise(state: State) -> list[str]:
    """The models whose files have such names."""
    return [host for host, source in SOURCES.items() if any(source.telling.match(name) for name in state)]
