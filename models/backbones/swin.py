"""Swin feature pyramids, from torchvision's own blocks and under torchvision's parameter names.

Liu et al., Swin Transformer, section 3.1; Swin Transformer V2. Shape legend: B images, H W pixels, D channels.
"""

import math
import re
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from ...schemas.errors import UserError
from .base import LEVELS, Backbone
from .state_dict import unwrap

_PATCH = 4
_STEM = "features.0.0.weight"
_PREFIX = re.compile(r"^(?:(?:module|model|backbone)\.)+")
# (channels of the stem, blocks of the third stage, whether attention is scaled cosine) -> name
_ARCHS = {
    (96, 6, False): "swin_t",
    (96, 18, False): "swin_s",
    (128, 18, False): "swin_b",
    (96, 6, True): "swin_v2_t",
    (96, 18, True): "swin_v2_s",
    (128, 18, True): "swin_v2_b",
}


class Swin(Backbone):
    """Swin-T, -S or -B, of either version.

    The state dict is torchvision's less `head.*`. Input is RGB under ImageNet's mean and deviation; sides that are no
    multiples of 4 are filled up with that mean. c5 is normalised, as the classifier takes it; the other maps are what
    the stages give.
    """

    mean = (123.675, 116.28, 103.53)
    std = (58.395, 57.12, 57.375)
    stem = ("features.0.", "features.1.")

    def __init__(self, arch: str = "swin_t") -> None:
        super().__init__()
        from torchvision.models import get_model  # slow, and whoever reads weights imports this module

        whole = get_model(arch, weights=None)
        self.features: nn.Module = whole.features
        self.norm: nn.Module = whole.norm
        self.strides = dict(zip(LEVELS, (4, 8, 16, 32), strict=True))
        width = int(whole.norm.normalized_shape[0])
        self.channels = {level: width // 2 ** (3 - i) for i, level in enumerate(LEVELS)}

    def forward(self, images_B3HW: Tensor, level: str = "c5") -> dict[str, Tensor]:
        """Normalised images to `c2` .. `level`, each [B, channels, ceil(H / stride), ceil(W / stride)]."""
        if level not in LEVELS:
            raise ValueError(f"there is no level {level!r}: choose one of {', '.join(LEVELS)}")
        height, width = images_B3HW.shape[2:]
        short = (math.ceil(height / _PATCH) * _PATCH - height, math.ceil(width / _PATCH) * _PATCH - width)
        x_BhwD = F.pad(images_B3HW, (0, short[1], 0, short[0]))
        maps: dict[str, Tensor] = {}
        for place, layer in enumerate(self.features.children()):
            x_BhwD = layer(x_BhwD)
            if place % 2:
                name = LEVELS[place // 2]
                maps[name] = (self.norm(x_BhwD) if name == "c5" else x_BhwD).permute(0, 3, 1, 2)
                if name == level:
                    break
        return maps


def swin_state(raw: Mapping[str, object]) -> dict[str, Tensor] | None:
    """The tensors of a Swin under torchvision's names, without its classifier; None where there is none."""
    state = {_PREFIX.sub("", name): tensor for name, tensor in unwrap(raw).items()}
    if _STEM not in state:
        return None
    return {name: tensor for name, tensor in state.items() if not name.startswith("head.")}


def infer_swin(state: Mapping[str, Tensor]) -> str:
    """The architecture that a `swin_state` belongs to. Raises UserError for others."""
    blocks = {name.split(".")[2] for name in state if name.startswith("features.5.")}
    scaled = any(name.endswith("logit_scale") for name in state)
    found = _ARCHS.get((state[_STEM].shape[0], len(blocks), scaled))
    if found is None:
        raise UserError(
            f"the weights hold a Swin of {len(blocks)} blocks in its third stage: give {', '.join(_ARCHS.values())}"
        )
    return found
