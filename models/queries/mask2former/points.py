"""Masks at points instead of pixels (Kirillov et al., PointRend; Mask2Former, section 3.3).

Shape legend: M masks, P points (x, y) in 0..1, h w cells.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Draw = Callable[[int, int, torch.device], Tensor]  # so many sets of so many points in 0..1: [M, P, 2]
OVERSAMPLE, IMPORTANT = 3, 0.75


def uniform(sets: int, points: int, device: torch.device) -> Tensor:
    """Points from torch's generator."""
    return torch.rand(sets, points, 2, device=device)


def sample(maps_Mhw: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of each map at its points [M, P, 2], or of all at the same [P, 2]: [M, P]."""
    if points.dim() == 2:
        return F.grid_sample(maps_Mhw[None], 2 * points[None, :, None] - 1, align_corners=False)[0, :, :, 0]
    return F.grid_sample(maps_Mhw[:, None], 2 * points[:, :, None] - 1, align_corners=False)[:, 0, :, 0]


@torch.no_grad()
def uncertain_points(logits_Mhw: Tensor, count: int, draw: Draw) -> Tensor:
    """Points where a loss is worth the most: [M, P, 2].

    Three quarters are those of smallest |logit| among three times `count` uniform ones, the others are uniform.
    """
    masks, device = len(logits_Mhw), logits_Mhw.device
    candidates = draw(masks, OVERSAMPLE * count, device)
    important = int(IMPORTANT * count)
    best = (-sample(logits_Mhw, candidates).abs()).topk(important, dim=1).indices
    chosen = candidates.gather(1, best[..., None].expand(-1, -1, 2))
    return torch.cat([chosen, draw(masks, count - important, device)], dim=1)
