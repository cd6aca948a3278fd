"""Vectors stored for each mask.

The mean feature in its tight box (Saliency Prompt Eq. 5, on the backbone's map) and the seed vector S_l (Eq. 9).

Shape legend: B images, M masks, H W feature cells, K = H*W, D channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def box_weights(masks_BMHW: Tensor) -> Tensor:
    """Weights [B, M, K] that average the cells of each mask's tight box on the grid; zeros for an empty mask."""
    inside = []
    for occupied in (masks_BMHW.any(3), masks_BMHW.any(2)):  # rows, then columns
        forward = occupied.cummax(2).values
        backward = occupied.flip(2).cummax(2).values.flip(2)
        inside.append((forward & backward).float())
    rows_BMH, columns_BMW = inside
    box_BMK = (rows_BMH.unsqueeze(3) * columns_BMW.unsqueeze(2)).flatten(2)
    return box_BMK / box_BMK.sum(2, keepdim=True).clamp_min(1)


def pool_vectors(cells_BKD: Tensor, weights_BMK: Tensor) -> Tensor:
    """Weighted sums of cell features: fp32 [B, M, D]."""
    return torch.bmm(weights_BMK, cells_BKD)


def unit_length(vectors_BMD: Tensor) -> Tensor:
    """L2-normalised vectors; a zero vector stays zero."""
    return F.normalize(vectors_BMD, dim=2, eps=1e-12)
