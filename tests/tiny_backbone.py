"""A backbone of four layers, for tests of what stands on it."""

import torch
from torch import Tensor, nn

from saliency_prompt.models.backbones.base import LEVELS, Backbone


class TinyBackbone(Backbone):
    """Strides 4 to 32, 16 channels each."""

    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.channels = dict.fromkeys(LEVELS, 16)
        self.strides = dict(zip(LEVELS, (4, 8, 16, 32), strict=True))
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inside, 16, 2 * stride - 1, stride, stride - 1), nn.GroupNorm(4, 16), nn.ReLU())
            for inside, stride in ((3, 4), (16, 2), (16, 2), (16, 2))
        )

    def forward(self, images_B3HW: Tensor, level: str = "c5") -> dict[str, Tensor]:  # noqa: ARG002
        maps = {}
        for name, layer in zip(LEVELS, self.layers, strict=True):
            maps[name] = images_B3HW = layer(images_B3HW)
        return maps
