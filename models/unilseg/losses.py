"""UniLSeg's losses: cross-entropy of pixels and Dice (UniLSeg, section 4.1; weights unsaid).

Shape legend: T responses of a pair that are supervised, B pairs, h w cells, H W pixels.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ..detector import Average

SMOOTH = 1.0  # of Dice: an empty mask that is found empty costs nothing


@dataclass(frozen=True, slots=True)
class Weights:
    """Of the two losses."""

    cross_entropy: float = 1.0
    dice: float = 1.0


def referring_losses(
    logits_TBhw: Tensor, masks_BHW: Tensor, weights_B: Tensor, weights: Weights, average: Average
) -> dict[str, Tensor]:
    """Weighted losses by name, over responses enlarged to the size of the masks; mean over T and pairs.

    masks_BHW: 0 or 1; weights_B: what a pair counts.
    """
    responses, pairs = logits_TBhw.shape[:2]
    size = masks_BHW.shape[1:]
    logits = F.interpolate(logits_TBhw.float(), size, mode="bilinear", align_corners=False)
    targets = masks_BHW.to(logits.dtype).expand(responses, pairs, *size)
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean((2, 3))
    count = average(weights_B.sum()) * responses
    return {
        "cross_entropy": weights.cross_entropy * (entropy * weights_B).sum() / count,
        "dice": weights.dice * (smooth_dice(logits.sigmoid(), targets) * weights_B).sum() / count,
    }


def smooth_dice(shares: Tensor, targets: Tensor) -> Tensor:
    """1 - (2 sum(p t) + 1) / (sum p + sum t + 1) over the last two axes."""
    both = (shares * targets).sum((-2, -1))
    return 1 - (2 * both + SMOOTH) / (shares.sum((-2, -1)) + targets.sum((-2, -1)) + SMOOTH)
