"""Losses of masks and classes that several models share.

Shape legend: M masks, P pixels.
"""

import torch.nn.functional as F
from torch import Tensor

ALPHA, GAMMA = 0.25, 2.0  # of the focal loss
DICE_EPS = 1e-3


def focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Sigmoid focal loss of each element; targets are 0 or 1 in the logits' shape."""
    p = logits.sigmoid()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    p_true = p * targets + (1 - p) * (1 - targets)
    alpha = ALPHA * targets + (1 - ALPHA) * (1 - targets)
    return alpha * (1 - p_true) ** GAMMA * cross_entropy


def dice_loss(logits_MP: Tensor, targets_MP: Tensor, eps: float = DICE_EPS) -> Tensor:
    """1 - 2 sum(p t) / (sum p^2 + sum t^2), each sum with an epsilon: [M]."""
    return dice_distance(logits_MP.sigmoid(), targets_MP, eps)


def dice_distance(p: Tensor, targets_MP: Tensor, eps: float = DICE_EPS) -> Tensor:
    """`dice_loss` of probabilities [M, P]."""
    squares = ((p * p).sum(1) + eps) + ((targets_MP * targets_MP).sum(1) + eps)
    return 1 - 2 * (p * targets_MP).sum(1) / squares
