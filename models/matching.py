"""Pairs of queries and objects (Hungarian matching), and K-Net's costs.

Shape legend: N queries, M objects, K classes, P pixels.
"""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .losses import ALPHA, DICE_EPS, GAMMA


def match_cost(
    classes_NK: Tensor | None,
    masks_NP: Tensor,
    labels_M: Tensor,
    targets_MP: Tensor,
    weights: tuple[float, float, float],
) -> Tensor:
    """Cost of every pair [N, M]: weights of class (focal), Dice and pixel agreement; logits and soft targets.

    Without classes the class term is left out.
    """
    weight_class, weight_dice, weight_mask = weights
    p = masks_NP.sigmoid()
    inter = p @ targets_MP.T
    squares = ((p * p).sum(1) + DICE_EPS)[:, None] + ((targets_MP * targets_MP).sum(1) + DICE_EPS)
    agree = 2 * inter + p.shape[1] - p.sum(1)[:, None] - targets_MP.sum(1)  # sum(p t) + sum((1 - p)(1 - t))
    cost = -2 * inter / squares * weight_dice - agree / p.shape[1] * weight_mask
    if classes_NK is not None:
        cost = cost + weight_class * focal_cost(classes_NK, labels_M)
    return cost


def focal_cost(classes_NK: Tensor, labels_M: Tensor) -> Tensor:
    """What the focal loss would gain if a query were of an object's class: [N, M]."""
    q = classes_NK.sigmoid()
    positive = ALPHA * (1 - q) ** GAMMA * -(q + 1e-12).log()
    negative = (1 - ALPHA) * q**GAMMA * -(1 - q + 1e-12).log()
    return (positive - negative)[:, labels_M]


def assign(cost_NM: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs (query, object) of least total cost, min(N, M) of them, by object (Hungarian method).

    Costs that are no numbers, as diverging runs make them, count as very high.
    """
    cost = np.nan_to_num(cost_NM.detach().float().cpu().numpy(), nan=1e10, posinf=1e10, neginf=-1e10)
    queries, objects = linear_sum_assignment(np.clip(cost, -1e10, 1e10))
    order = np.argsort(objects)
    device = cost_NM.device
    return torch.as_tensor(queries[order], device=device), torch.as_tensor(objects[order], device=device)
