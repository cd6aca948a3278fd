"""Deformable attention over maps of several sizes (Zhu et al., Deformable DETR, Eq. 3), from torch's own sampling.

Shape legend: B images, S cells of all levels in a row, C channels, D channels of a head, L levels, P points.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...detector import Size


class DeformableAttention(nn.Module):
    """Every cell looks at a few places around itself, on each level. Computed in fp32."""

    def __init__(self, channels: int, levels: int, *, heads: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.offsets = nn.Linear(channels, heads * levels * points * 2)
        self.weights = nn.Linear(channels, heads * levels * points)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)
        for linear in (self.value, self.out):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        self.reset()

    def reset(self) -> None:
        """Head h looks in direction 2 pi h / heads, point i at i + 1 cells on a square around; all count the same."""
        for linear in (self.offsets, self.weights):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack([angle.cos(), angle.sin()], dim=1)
        direction = direction / direction.abs().amax(1, keepdim=True)
        steps = torch.arange(1, self.points + 1)[None, None, :, None]
        far = (direction[:, None, None] * steps).expand(-1, self.levels, -1, -1)
        with torch.no_grad():
            self.offsets.bias.copy_(far.flatten())

    def forward(self, queries_BSC: Tensor, values_BSC: Tensor, centres_S2: Tensor, sizes: Sequence[Size]) -> Tensor:
        """Queries with their places added, values, each cell's centre (x, y) in 0..1, sizes of levels: [B, S, C]."""
        with torch.autocast(queries_BSC.device.type, enabled=False):
            return self._attend(queries_BSC.float(), values_BSC.float(), centres_S2, sizes)

    def _attend(self, queries_BSC: Tensor, values_BSC: Tensor, centres_S2: Tensor, sizes: Sequence[Size]) -> Tensor:
        batch, cells, channels = queries_BSC.shape
        depth = channels // self.heads
        layout = (batch, cells, self.heads, self.levels, self.points)
        scale_L2 = torch.tensor([[w, h] for h, w in sizes], dtype=torch.float32, device=queries_BSC.device)
        offsets_BShLP2 = self.offsets(queries_BSC).view(*layout, 2) / scale_L2[:, None]
        grid_BShLP2 = 2 * (centres_S2[:, None, None, None] + offsets_BShLP2) - 1
        weights_BShLP = self.weights(queries_BSC).view(*layout[:3], -1).softmax(-1).view(layout)
        values = self.value(values_BSC).view(batch, cells, self.heads, depth)
        total = values.new_zeros(batch * self.heads, depth, cells)
        per_level = torch.split(values, [h * w for h, w in sizes], dim=1)
        for level, ((height, width), value) in enumerate(zip(sizes, per_level, strict=True)):
            maps = value.permute(0, 2, 3, 1).reshape(batch * self.heads, depth, height, width)
            grid = grid_BShLP2[:, :, :, level].transpose(1, 2).flatten(0, 1)  # [B heads, S, P, 2]
            seen = F.grid_sample(maps, grid, align_corners=False)  # [B heads, D, S, P]
            share = weights_BShLP[:, :, :, level].transpose(1, 2).flatten(0, 1)
            total = total + (seen * share[:, None]).sum(-1)
        mixed: Tensor = self.out(total.view(batch, channels, cells).transpose(1, 2))
        return mixed
