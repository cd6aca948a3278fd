"""Backbone features to what the queries look at: deformable attention over strides 32, 16, 8, then stride 4.

Shape legend: B images, C channels, S cells of strides 32, 16, 8 in a row, h w cells of a map.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import group_norm, sine_position
from .attention import DeformableAttention

NAMES = ("p5", "p4", "p3")  # coarse to fine, as everything here is ordered
INPUTS = ("c5", "c4", "c3")


class EncoderLayer(nn.Module):
    """Deformable attention and a feed-forward network, each followed by addition and normalisation."""

    def __init__(self, channels: int, *, heads: int, points: int, hidden: int) -> None:
        super().__init__()
        self.attention = DeformableAttention(channels, len(NAMES), heads=heads, points=points)
        self.attention_norm = nn.LayerNorm(channels)
        self.feed_forward = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.feed_forward_norm = nn.LayerNorm(channels)
        for module in self.feed_forward:
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)

    def forward(
        self, cells_BSC: Tensor, places_1SC: Tensor, centres_S2: Tensor, sizes: list[tuple[int, int]]
    ) -> Tensor:
        """[B, S, C] -> [B, S, C]."""
        attended = self.attention(cells_BSC + places_1SC, cells_BSC, centres_S2, sizes)
        cells_BSC = self.attention_norm(cells_BSC + attended)
        normed: Tensor = self.feed_forward_norm(cells_BSC + self.feed_forward(cells_BSC))
        return normed


class PixelDecoder(nn.Module):
    """c2 .. c5 -> p5, p4, p3 [B, C, ., .] and `masks`, the features at stride 4 that masks are products with."""

    def __init__(
        self, inputs: dict[str, int], channels: int, *, layers: int, heads: int, points: int, hidden: int
    ) -> None:
        super().__init__()
        self.projections = nn.ModuleList(_projected(inputs[level], channels) for level in INPUTS)
        self.level_embed = nn.Parameter(torch.randn(len(NAMES), channels))
        self.layers = nn.ModuleList(
            EncoderLayer(channels, heads=heads, points=points, hidden=hidden) for _ in range(layers)
        )
        self.lateral = nn.Sequential(_spread(nn.Conv2d(inputs["c2"], channels, 1, bias=False)), group_norm(channels))
        self.fused = nn.Sequential(
            _spread(nn.Conv2d(channels, channels, 3, padding=1, bias=False)), group_norm(channels), nn.ReLU()
        )
        self.masks = _spread(nn.Conv2d(channels, channels, 1))

    def forward(self, maps: dict[str, Tensor]) -> dict[str, Tensor]:
        """See the class."""
        projected = [project(maps[level]) for project, level in zip(self.projections, INPUTS, strict=True)]
        sizes = [(one.shape[2], one.shape[3]) for one in projected]
        cells_BSC = _in_a_row(projected)
        places = [sine_position(one) + self.level_embed[i].view(1, -1, 1, 1) for i, one in enumerate(projected)]
        places_1SC, centres_S2 = _in_a_row(places), cell_centres(sizes, cells_BSC.device)
        for layer in self.layers:
            cells_BSC = layer(cells_BSC, places_1SC, centres_S2, sizes)
        parts = torch.split(cells_BSC, [h * w for h, w in sizes], dim=1)
        found = {
            name: part.transpose(1, 2).reshape(len(part), -1, *size)
            for name, part, size in zip(NAMES, parts, sizes, strict=True)
        }
        lateral = self.lateral(maps["c2"])
        up = F.interpolate(found["p3"], lateral.shape[2:], mode="bilinear", align_corners=False)
        return {**found, "masks": self.masks(self.fused(lateral + up))}


def cell_centres(sizes: list[tuple[int, int]], device: torch.device) -> Tensor:
    """(x, y) in 0..1 of every cell of every level: [S, 2]."""
    centres = []
    for height, width in sizes:
        y = (torch.arange(height, device=device) + 0.5) / height
        x = (torch.arange(width, device=device) + 0.5) / width
        centres.append(torch.stack([x.repeat(height), y.repeat_interleave(width)], dim=1))
    return torch.cat(centres)


def _in_a_row(maps: list[Tensor]) -> Tensor:
    return torch.cat([one.flatten(2).transpose(1, 2) for one in maps], dim=1)


def _projected(inputs: int, channels: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, channels, 1)
    nn.init.xavier_uniform_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return nn.Sequential(conv, group_norm(channels))


def _spread(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.kaiming_uniform_(conv.weight, a=1)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv
