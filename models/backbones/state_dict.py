"""From the many shapes in which ResNet checkpoints are saved to torchvision's names. Pure functions.

Seen in the wild: MoCo `state_dict` with module.encoder_q.* beside module.encoder_k.*, OpenSelfSup and DenseCL with
backbone.* beside encoder_q.0.*, DINO `teacher` with backbone.*, SwAV module.* with a projection head.
"""

import re
from collections.abc import Collection, Mapping

from torch import Tensor, nn

from ...schemas.errors import UserError

_WRAPPERS = ("state_dict", "model", "teacher")
_PREFIX = re.compile(r"(?:(?:module|model|backbone|encoder_q|encoder|base_encoder|trunk)\.(?:0\.)?)*")
_STEM = "conv1.weight"
_HEADS = re.compile(
    r"(?:(?:module|model)\.)*"
    r"(?:fc\d*|classifier|heads?|\w+_head|neck|projector|projection|predictor|prototypes"
    r"|encoder_q|encoder_k|momentum_encoder|queue\w*)(?:\.|$)"
)
# (has bottlenecks, blocks per layer, outputs and inputs per group of the first block's conv2) -> name
_ARCHS = {
    (False, (2, 2, 2, 2), (64, 64)): "resnet18",
    (False, (3, 4, 6, 3), (64, 64)): "resnet34",
    (True, (3, 4, 6, 3), (64, 64)): "resnet50",
    (True, (3, 4, 23, 3), (64, 64)): "resnet101",
    (True, (3, 4, 6, 3), (128, 4)): "resnext50_32x4d",
    (True, (3, 4, 23, 3), (256, 8)): "resnext101_32x8d",
    (True, (3, 4, 23, 3), (256, 4)): "resnext101_64x4d",
}
_WIDTHS = "layer1.0.conv2.weight"


def unwrap(raw: Mapping[str, object]) -> dict[str, Tensor]:
    """The tensors of a checkpoint, out of the dictionaries (`state_dict`, `model`, `teacher`) around them.

    Raises UserError when there is no named tensor.
    """
    while inner := next((w for w in (raw.get(k) for k in _WRAPPERS) if isinstance(w, Mapping)), None):
        raw = inner
    tensors = {str(k): v for k, v in raw.items() if isinstance(v, Tensor)}
    if not tensors:
        raise UserError("the weights file holds no named tensors: give one that holds a backbone's state dict")
    return tensors


def backbone_state(raw: Mapping[str, object]) -> dict[str, Tensor]:
    """The backbone's tensors under torchvision's names, without prefixes and without heads.

    Prefixes (`module.`, `backbone.`, `encoder_q.`, `encoder.`, ... nested in any order) are taken off where the
    stem convolution `conv1.weight` appears; with several such places the least nested one counts. Heads are
    classifiers, necks, projectors, predictors, queues and momentum encoders. What is neither stays, under
    its full name, for `load_backbone_state` to complain about. Raises UserError when no stem is found.
    """
    tensors = unwrap(raw)
    prefixes = [
        k.removesuffix(_STEM) for k in tensors if k.endswith(_STEM) and _PREFIX.fullmatch(k.removesuffix(_STEM))
    ]
    if not prefixes:
        raise UserError(
            f"the weights file holds no ResNet: {_STEM} is not among its names ({_listed(tensors)}); "
            "give a checkpoint with torchvision's parameter names"
        )
    prefix = min(prefixes, key=lambda p: (p.count("."), p))
    names = {k: k.removeprefix(prefix) for k in tensors}
    return {name: tensors[k] for k, name in names.items() if not _HEADS.match(name)}


def infer_arch(state: Mapping[str, Tensor]) -> str:
    """The architecture that a `backbone_state` belongs to, from its blocks. Raises UserError for others."""
    blocks = {m.groups() for k in state if (m := re.match(r"layer([1-4])\.(\d+)\.", k))}
    counts = tuple(sum(layer == str(i) for layer, _ in blocks) for i in range(1, 5))
    widths = (state[_WIDTHS].shape[0], state[_WIDTHS].shape[1]) if _WIDTHS in state else (0, 0)
    arch = _ARCHS.get(("layer1.0.conv3.weight" in state, (counts[0], counts[1], counts[2], counts[3]), widths))
    if arch is None:
        raise UserError(
            f"the weights file holds a network with {counts} blocks in layer1..4, which is none of "
            f"{', '.join(_ARCHS.values())}: give the weights of one of these"
        )
    return arch


def load_backbone_state(module: nn.Module, raw: Mapping[str, object]) -> None:
    """Copy a checkpoint, as read from its file, into a backbone, in place.

    Raises UserError that lists the names when parameters are missing, left over or of another shape;
    `num_batches_tracked` may be absent.
    """
    fill(module, backbone_state(raw))


def fill(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy tensors under a module's own names into it, in place. Raises UserError as `load_backbone_state` does."""
    own = module.state_dict()
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    left_over = [k for k in state if k not in own]
    misshapen = [
        f"{k} {tuple(state[k].shape)} instead of {tuple(v.shape)}"
        for k, v in own.items()
        if k in state and state[k].shape != v.shape
    ]
    found = {"missing": missing, "left over": left_over, "of another shape": misshapen}
    if wrong := [f"{len(names)} {what} ({_listed(names)})" for what, names in found.items() if names]:
        raise UserError(
            f"the weights do not fit the backbone: {'; '.join(wrong)}; give matching weights or another features.arch"
        )
    module.load_state_dict(state, strict=False)


def _listed(names: Collection[str], limit: int = 8) -> str:
    shown = ", ".join(list(names)[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
