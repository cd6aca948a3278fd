"""Sine codes of places, as the released code of UniLSeg writes them.

DETR's frequencies (temperature 10,000). On maps places are centres of cells as a share of the side, rows in the first
half of the channels; in sentences they run from 1/L to 1, padding included.

Shape legend: L words, H W cells, C channels.
"""

import math

import torch
from torch import Tensor

TEMPERATURE = 10_000.0


def sine_words(length: int, channels: int, like: Tensor) -> Tensor:
    """[L, C] of the places in a sentence, on the device and in the type of `like`."""
    places = torch.arange(1, length + 1, device=like.device, dtype=torch.float32) / length
    return _code(places, channels).to(like.dtype)


def sine_map(height: int, width: int, channels: int, like: Tensor) -> Tensor:
    """[H W, C] of the cells of a map, row by row."""

    def side(cells: int) -> Tensor:
        centres = (torch.arange(cells, device=like.device, dtype=torch.float32) + 0.5) / cells
        return _code(centres, channels // 2)

    rows, columns = side(height), side(width)
    code = torch.cat([rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)], dim=2)  # [H, W, C]
    return code.flatten(0, 1).to(like.dtype)


def _code(shares_n: Tensor, channels: int) -> Tensor:
    """Sines and cosines in turn, [n, channels]."""
    place = torch.arange(channels, device=shares_n.device, dtype=torch.float32)
    angle = shares_n[:, None] * 2 * math.pi / TEMPERATURE ** (2 * (place // 2) / channels)
    return torch.where(place % 2 == 0, angle.sin(), angle.cos())
