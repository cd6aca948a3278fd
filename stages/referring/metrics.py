"""Metrics of segmentation with language (METHOD 10.8, 11.8); all in 0..1.

Shape legend: P pairs, K classes, H W pixels, T thresholds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
PRECISIONS = (0.5, 0.6, 0.7, 0.8, 0.9)
BETA2 = 0.3  # of the F measure of salient objects
LEVELS = 255  # thresholds of its mean
TOLERANCE = 0.008  # of the boundary measure, as a share of the diagonal


def overlap(found_HW: Mask, truth_HW: Mask) -> tuple[int, int]:
    """Pixels in both, and in either."""
    return int((found_HW & truth_HW).sum()), int((found_HW | truth_HW).sum())


def referring_scores(inside: Sequence[int], either: Sequence[int]) -> dict[str, float]:
    """oIoU, mIoU and P@ from `overlap` of each pair; a pair that is empty on both sides has IoU 1."""
    inside_P, either_P = np.array(inside, np.float64), np.array(either, np.float64)
    iou_P = np.where(either_P > 0, inside_P / np.maximum(either_P, 1), 1.0)
    whole = either_P.sum()
    return {
        "oIoU": float(inside_P.sum() / whole) if whole else 1.0,
        "mIoU": float(iou_P.mean()) if len(iou_P) else 0.0,
        **{f"P@{cut}": float((iou_P > cut).mean()) if len(iou_P) else 0.0 for cut in PRECISIONS},
    }


def region_similarity(found_HW: Mask, truth_HW: Mask) -> float:
    """J of one frame: IoU, 1 where both are empty."""
    inside, either = overlap(found_HW, truth_HW)
    return inside / either if either else 1.0


def boundary_accuracy(found_HW: Mask, truth_HW: Mask) -> float:
    """F of one frame (Perazzi et al. 2016): boundaries match within 0.008 of the diagonal; 1 where both are empty."""
    found, truth = _boundary(found_HW), _boundary(truth_HW)
    if not found.any() or not truth.any():
        return float(not found.any() and not truth.any())
    radius = int(np.ceil(TOLERANCE * np.hypot(*found_HW.shape)))
    disk = np.hypot(*np.mgrid[-radius : radius + 1, -radius : radius + 1]) <= radius
    kernel = disk.astype(np.uint8)
    precision = (found & (cv2.dilate(truth.astype(np.uint8), kernel) > 0)).sum() / found.sum()
    recall = (truth & (cv2.dilate(found.astype(np.uint8), kernel) > 0)).sum() / truth.sum()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def _boundary(mask_HW: Mask) -> Mask:
    """Pixels that differ from the next one to the right, below, or diagonally; the last row and column look inward."""
    padded = np.pad(mask_HW, ((0, 1), (0, 1)), mode="edge")
    edge: Mask = (mask_HW ^ padded[:-1, 1:]) | (mask_HW ^ padded[1:, :-1]) | (mask_HW ^ padded[1:, 1:])
    return edge


def salient_f(saliency_HW: npt.NDArray[np.float32], truth_HW: Mask) -> float:
    """F of one image, beta^2 = 0.3, mean over 255 thresholds of a map in 0..1 (rounded to bytes)."""
    values = np.round(saliency_HW.clip(0, 1) * 255).astype(np.int64)
    positive = np.bincount(values[truth_HW], minlength=256)
    whole = np.bincount(values.ravel(), minlength=256)
    hits_T = positive[::-1].cumsum()[::-1][1:].astype(np.float64)  # values of at least 1, 2, ..., 255
    found_T = whole[::-1].cumsum()[::-1][1:].astype(np.float64)
    precision = hits_T / np.maximum(found_T, 1)
    recall = hits_T / max(1, int(truth_HW.sum()))
    below = BETA2 * precision + recall
    f_T = np.where(below > 0, (1 + BETA2) * precision * recall / np.where(below > 0, below, 1), 0.0)
    return float(f_T.mean())


@dataclass(slots=True, eq=False)
class ClassOverlap:
    """Intersections and unions [K], accumulated over a set; pixels of label `ignore` have no part."""

    inside: npt.NDArray[np.int64]
    either: npt.NDArray[np.int64]
    ignore: int = 255

    @classmethod
    def of(cls, classes: int, ignore: int = 255) -> "ClassOverlap":
        """Nothing yet."""
        return cls(np.zeros(classes, np.int64), np.zeros(classes, np.int64), ignore)

    def add(self, found_HW: npt.NDArray[np.integer], truth_HW: npt.NDArray[np.integer]) -> None:
        """One image; labels outside 0..K-1 are no class."""
        classes = len(self.inside)
        known = truth_HW != self.ignore
        found, truth = found_HW[known], truth_HW[known]

        def count(labels: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
            good = labels[(labels >= 0) & (labels < classes)]
            return np.bincount(good.astype(np.int64), minlength=classes)

        same = count(truth[found == truth])
        self.inside += same
        self.either += count(found) + count(truth) - same

    def mean(self) -> float:
        """MIoU over the classes that occur."""
        seen = self.either > 0
        return float((self.inside[seen] / self.either[seen]).mean()) if seen.any() else 0.0
