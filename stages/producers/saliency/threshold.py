"""From soft maps to binary masks and their maskness.

Saliency Prompt section 3.2; maskness is FreeSOLO section 6.2.2.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Candidates:
    """Binary masks on the grid with their scores.

    masks [B, N, K] 0 or 1 in fp32, as the matrix products of NMS want them; maskness [B, N] in [tau, 1],
    0 for what is no mask.
    """

    masks: Tensor
    maskness: Tensor


def threshold_maps(maps_BNK: Tensor, tau: float, min_cells: int) -> Candidates:
    """Cells with saliency >= tau; maskness is the mean saliency inside. Fewer than `min_cells` cells are no mask."""
    masks_BNK = (maps_BNK >= tau).float()
    cells_BN = masks_BNK.sum(2)
    inside_BN = (maps_BNK * masks_BNK).sum(2)
    maskness_BN = torch.where(cells_BN >= min_cells, inside_BN / cells_BN.clamp_min(1), 0)
    return Candidates(masks_BNK, maskness_BN)
