"""Mask NMS, of proposals on the feature grid and of what detectors find.

Matrix NMS is SOLOv2 Eq. 4-5 with the decay that every public code computes, exp(-c IoU^2). With labels, masks of
different ones do not touch each other.

Shape legend: B images, M masks sorted by descending score, K cells.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from .arithmetic import intersections

Suppression = Literal["hard", "soft", "fast", "matrix"]
SUPPRESSIONS: tuple[Suppression, ...] = get_args(Suppression)


def iou_matrix(masks_BMK: Tensor) -> Tensor:
    """Pairwise IoU of binary masks: 0/1 fp32 [B, M, K] -> [B, M, M]. Empty masks have IoU 0 with all."""
    inter_BMM = intersections(masks_BMK)
    area_BM = inter_BMM.diagonal(dim1=1, dim2=2)
    union_BMM = (area_BM.unsqueeze(2) + area_BM.unsqueeze(1)).sub_(inter_BMM)
    return inter_BMM.div_(union_BMM.clamp_min_(1))


def suppress(
    kind: Suppression,
    masks_BMK: Tensor,
    scores_BM: Tensor,
    labels_BM: Tensor | None = None,
    *,
    kernel: Literal["gaussian", "linear"] = "gaussian",
    gaussian_coeff: float = 2.0,
    iou_threshold: float = 0.5,
) -> Tensor:
    """Scores [B, M] after one of `SUPPRESSIONS` (SOLO thesis, Table 4.6) of masks sorted by descending score."""
    if kind == "matrix":
        return matrix_nms(masks_BMK, scores_BM, labels_BM, kernel=kernel, gaussian_coeff=gaussian_coeff)
    if kind == "soft":
        return soft_nms(masks_BMK, scores_BM, labels_BM, gaussian_coeff=gaussian_coeff)
    one = greedy_nms if kind == "hard" else fast_nms
    return one(masks_BMK, scores_BM, labels_BM, iou_threshold=iou_threshold)


def matrix_nms(
    masks_BMK: Tensor,
    scores_BM: Tensor,
    labels_BM: Tensor | None = None,
    *,
    kernel: Literal["gaussian", "linear"],
    gaussian_coeff: float,
) -> Tensor:
    """Decayed scores [B, M] of masks sorted by descending score (SOLOv2 Eq. 4-5).

    decay_j = min over i < j of f(IoU_ij) / f(max over k < i of IoU_ki), with f(u) = exp(-c u^2) or 1 - u.
    The linear denominator is at least 1e-6, which defines the 0/0 of three identical masks.
    """
    iou_BMM = _comparable(masks_BMK, labels_BM).triu_(1)
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


def greedy_nms(
    masks_BMK: Tensor, scores_BM: Tensor, labels_BM: Tensor | None = None, *, iou_threshold: float
) -> Tensor:
    """Scores [B, M] of masks sorted by descending score, 0 for those that overlap a kept better one.

    A mask goes if its IoU with a kept mask is above `iou_threshold`.
    """
    overlaps_BMM = _comparable(masks_BMK, labels_BM).triu_(1) > iou_threshold
    keep_BM = torch.ones_like(scores_BM, dtype=torch.bool)
    for i in range(scores_BM.shape[1]):
        keep_BM &= ~(overlaps_BMM[:, i] & keep_BM[:, i : i + 1])
    return scores_BM * keep_BM


def fast_nms(masks_BMK: Tensor, scores_BM: Tensor, labels_BM: Tensor | None = None, *, iou_threshold: float) -> Tensor:
    """`greedy_nms` in one step: a mask goes if it overlaps any better one, kept or not (YOLACT's Fast NMS)."""
    overlaps_BMM = _comparable(masks_BMK, labels_BM).triu_(1) > iou_threshold
    return scores_BM * ~overlaps_BMM.any(1)


def soft_nms(masks_BMK: Tensor, scores_BM: Tensor, labels_BM: Tensor | None = None, *, gaussian_coeff: float) -> Tensor:
    """Scores [B, M] that every mask in turn, by descending *current* score, decays by exp(-c IoU^2).

    Bodla et al., Soft-NMS, with the Gaussian. A mask that has had its turn keeps its score.
    """
    decay_BMM = torch.exp(-gaussian_coeff * _comparable(masks_BMK, labels_BM).square_())
    scores_BM = scores_BM.clone()
    waiting_BM = torch.ones_like(scores_BM, dtype=torch.bool)
    for _ in range(scores_BM.shape[1]):
        best_B1 = torch.where(waiting_BM, scores_BM, -torch.inf).argmax(1, keepdim=True)
        waiting_BM.scatter_(1, best_B1, False)
        decay_BM = decay_BMM.gather(1, best_B1.unsqueeze(2).expand(-1, -1, scores_BM.shape[1]))[:, 0]
        scores_BM = torch.where(waiting_BM, scores_BM * decay_BM, scores_BM)
    return scores_BM


def _comparable(masks_BMK: Tensor, labels_BM: Tensor | None) -> Tensor:
    """Pairwise IoU [B, M, M], 0 between different labels."""
    iou_BMM = iou_matrix(masks_BMK)
    if labels_BM is not None:
        iou_BMM.masked_fill_(labels_BM.unsqueeze(1) != labels_BM.unsqueeze(2), 0)
    return iou_BMM
