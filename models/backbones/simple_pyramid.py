"""A pyramid from a single map: what lets a detector stand on a ViT.

Shape legend: B images, H W pixels, D channels.
"""

import math

import torch.nn.functional as F
from torch import Tensor

from ...schemas.errors import UserError
from .base import LEVELS, Backbone

_STRIDES = dict(zip(LEVELS, (4, 8, 16, 32), strict=True))


class SimplePyramid(Backbone):
    """c2 to c5 of a backbone that has one map (Li et al., Exploring Plain Vision Transformer Backbones, section 3).

    Images are scaled so that a patch covers 16 pixels, whatever its size. The map is c4; c3 and c2 are interpolated
    (bilinear), and c5 averages fours of its cells. Unlike the paper's, levels have no parameters of their own, so that
    a frozen backbone stays what it was: what a level needs is learned by the network that takes them.
    """

    def __init__(self, single: Backbone) -> None:
        super().__init__()
        self.single = single
        self.mean, self.std = single.mean, single.std
        self.stem = tuple(f"single.{name}" for name in single.stem)
        self.strides = dict(_STRIDES)
        self.channels = dict.fromkeys(LEVELS, single.channels[single.levels[0]])

    def forward(self, images_B3HW: Tensor, level: str = "c5") -> dict[str, Tensor]:
        """Normalised images to `c2` .. `level`, each [B, D, ceil(H / stride), ceil(W / stride)]."""
        if level not in LEVELS:
            raise ValueError(f"there is no level {level!r}: choose one of {', '.join(LEVELS)}")
        height, width = images_B3HW.shape[2:]
        sizes = {name: (math.ceil(height / stride), math.ceil(width / stride)) for name, stride in _STRIDES.items()}
        (own, patch), *_ = self.single.strides.items()
        rows, columns = sizes["c4"]
        scaled = F.interpolate(
            images_B3HW, (rows * patch, columns * patch), mode="bilinear", align_corners=False, antialias=True
        )
        map_BDhw = self.single(scaled, own)[own]
        maps = {
            "c2": lambda: F.interpolate(map_BDhw, sizes["c2"], mode="bilinear", align_corners=False),
            "c3": lambda: F.interpolate(map_BDhw, sizes["c3"], mode="bilinear", align_corners=False),
            "c4": lambda: map_BDhw,
            "c5": lambda: F.avg_pool2d(map_BDhw, 2, ceil_mode=True),
        }
        return {name: maps[name]() for name in LEVELS[: LEVELS.index(level) + 1]}


def as_pyramid(backbone: Backbone) -> Backbone:
    """The backbone, or a pyramid of its only map. Raises UserError where a detector could not be trained on it."""
    if any(True for _ in backbone.parameters()):
        if backbone.strides == _STRIDES:
            return backbone
        if len(backbone.levels) == 1:
            return SimplePyramid(backbone)
    raise UserError("this backbone has no pyramid to train on: give weights of a ResNet, Swin or ViT, or random.")
