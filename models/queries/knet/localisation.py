"""Pyramid features as one localisation map and one semantic map at stride 8 (K-Net's semantic FPN).

Shape legend: B images, C channels, h w cells at stride 8.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import group_norm, sine_position


class ConvNorm(nn.Sequential):
    """Convolution without bias, group normalisation, ReLU."""

    def __init__(self, channels: int, kernel: int, groups: int, stride: int = 1) -> None:
        conv = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, bias=False)
        nn.init.normal_(conv.weight, std=0.01)
        super().__init__(conv, group_norm(channels, groups), nn.ReLU(inplace=True))


class Localisation(nn.Module):
    """P2..P5 -> localisation and semantic features, both [B, C, h, w]."""

    def __init__(self, channels: int, groups: int = 32) -> None:
        super().__init__()
        self.p2 = ConvNorm(channels, 3, groups, stride=2)
        self.p3 = ConvNorm(channels, 3, groups)
        self.p4 = nn.ModuleList([ConvNorm(channels, 3, groups) for _ in range(2)])
        self.p5 = nn.ModuleList([ConvNorm(channels, 3, groups) for _ in range(3)])
        self.localisation = nn.Sequential(ConvNorm(channels, 1, groups), ConvNorm(channels, 1, groups))
        self.semantic = nn.Sequential(ConvNorm(channels, 1, groups), ConvNorm(channels, 1, groups))

    def forward(self, pyramid: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """See the class."""
        p3 = self.p3(pyramid["p3"])
        size = p3.shape[2:]
        p4 = self.p4[1](_resize(self.p4[0](pyramid["p4"]), size))
        p5 = self.p5[0](pyramid["p5"] + sine_position(pyramid["p5"]))
        p5 = self.p5[1](_resize(p5, pyramid["p4"].shape[2:]))
        p5 = self.p5[2](_resize(p5, size))
        fused = _resize(self.p2(pyramid["p2"]), size) + p3 + p4 + p5
        return self.localisation(fused), self.semantic(fused)


def _resize(map_BCHW: Tensor, size: torch.Size) -> Tensor:
    if map_BCHW.shape[2:] == size:
        return map_BCHW
    return F.interpolate(map_BCHW, size=size, mode="bilinear", align_corners=False)
