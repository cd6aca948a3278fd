"""Pieces that several hosts are made of.

Shape legend: B images, C channels, H W cells.
"""

import math

import torch
from torch import Tensor, nn


def sine_position(map_BCHW: Tensor) -> Tensor:
    """DETR's sine encoding of places, normalised to the map: [1, C, H, W], rows in the first half of the channels."""
    _, channels, height, width = map_BCHW.shape
    quarter = channels // 4
    scale = 10000 ** (torch.arange(quarter, device=map_BCHW.device) / quarter)

    def axis(size: int) -> Tensor:
        place = (torch.arange(size, device=map_BCHW.device) + 1) / size * 2 * math.pi
        angle = place[:, None] / scale
        return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)  # [size, C / 2]

    rows, columns = axis(height).T, axis(width).T
    both = torch.cat([rows[:, :, None].expand(-1, -1, width), columns[:, None, :].expand(-1, height, -1)])
    return both[None].to(map_BCHW.dtype)


def group_norm(channels: int, groups: int = 32) -> nn.GroupNorm:
    """Group normalisation in so many groups, or in as many as divide both."""
    return nn.GroupNorm(math.gcd(groups, channels), channels)
