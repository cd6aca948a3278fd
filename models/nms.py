"""Mask NMS on the feature grid.

Matrix NMS is SOLOv2 Eq. 4-5 with the decay that every public code computes, exp(-c IoU^2).

Shape legend: B images, M masks sorted by descending score, K cells.
"""

from typing import Literal

import torch
from torch import Tensor

from .arithmetic import exact_bf16_products


def iou_matrix(masks_BMK: Tensor) -> Tensor:
    """Pairwise IoU of binary masks: 0/1 fp32 [B, M, K] -> [B, M, M]. Empty masks have IoU 0 with all."""
    with exact_bf16_products(masks_BMK.device):
        inter_BMM = torch.bmm(masks_BMK, masks_BMK.transpose(1, 2))
    area_BM = inter_BMM.diagonal(dim1=1, dim2=2)
    union_BMM = (area_BM.unsqueeze(2) + area_BM.unsqueeze(1)).sub_(inter_BMM)
    return inter_BMM.div_(union_BMM.clamp_min_(1))


def matrix_nms(
    masks_BMK: Tensor, scores_BM: Tensor, *, kernel: Literal["gaussian", "linear"], gaussian_coeff: float
) -> Tensor:
    """Decayed scores [B, M] of masks sorted by descending score (SOLOv2 Eq. 4-5).

    decay_j = min over i < j of f(IoU_ij) / f(max over k < i of IoU_ki), with f(u) = exp(-c u^2) or 1 - u.
    The linear denominator is at least 1e-6, which defines the 0/0 of three identical masks.
    """
    iou_BMM = iou_matrix(masks_BMK).triu_(1)
    if iou_BMM.shape[1] == 0:
        return scores_BM
    covered_BM = iou_BMM.amax(1)  # the largest overlap of each mask with a better one
    if kernel == "gaussian":
        # the minimum of a ratio of exponentials is the exponential of a maximum: one exp per mask, not per pair
        excess_BMM = iou_BMM.square_().sub_(covered_BM.square().unsqueeze(2))
        decay_BM = torch.exp(-gaussian_coeff * excess_BMM.amax(1))
    else:
        ratio_BMM = (1 - iou_BMM) / (1 - covered_BM).clamp_min(1e-6).unsqueeze(2)
        decay_BM = ratio_BMM.amin(1)
    return scores_BM * decay_BM


def greedy_nms(masks_BMK: Tensor, scores_BM: Tensor, *, iou_threshold: float) -> Tensor:
    """Scores [B, M] of masks sorted by descending score, 0 for those that overlap a kept better one.

    A mask goes if its IoU with a kept mask is above `iou_threshold`.
    """
    overlaps_BMM = iou_matrix(masks_BMK).triu_(1) > iou_threshold
    keep_BM = torch.ones_like(scores_BM, dtype=torch.bool)
    for i in range(scores_BM.shape[1]):
        keep_BM &= ~(overlaps_BMM[:, i] & keep_BM[:, i : i + 1])
    return scores_BM * keep_BM
