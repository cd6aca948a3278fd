"""What can be said of masks and vectors without annotations: overlap, coverage, border contact, collapse.

Shape legend: n masks of one image, D feature channels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

Floats = npt.NDArray[np.floating[Any]]
MATCH_IOU = 0.5  # two masks that overlap so much show the same thing


def rles(counts: Sequence[bytes], height: int, width: int) -> list[dict[str, Any]]:
    """Compressed runs of equally large masks as pycocotools takes them."""
    return [{"size": [height, width], "counts": one} for one in counts]


def overlap(masks: list[dict[str, Any]]) -> npt.NDArray[np.float64]:
    """Of every mask but the best, the largest IoU with a better one: [max(n - 1, 0)]. Masks come best first."""
    if len(masks) < 2:
        return np.empty(0)
    iou_nn = coco_mask.iou(masks, masks, [0] * len(masks))
    return np.array([iou_nn[i, :i].max() for i in range(1, len(masks))])


def coverage(masks: list[dict[str, Any]]) -> float:
    """Fraction of the image that lies in some mask."""
    if not masks:
        return 0.0
    height, width = masks[0]["size"]
    return float(coco_mask.area(coco_mask.merge(masks)) / (height * width))


def border_sides(boxes_n4: Floats, widths_n: Floats, heights_n: Floats) -> npt.NDArray[np.int64]:
    """How many of the image's four sides a tight XYWH box touches, in pixels: [n], 0 to 4."""
    x, y, w, h = boxes_n4.T
    touches = np.stack((x < 1, y < 1, x + w > widths_n - 1, y + h > heights_n - 1))
    sides: npt.NDArray[np.int64] = touches.astype(np.int64).sum(0)
    return sides


def mean_cosine(vectors_nD: npt.NDArray[np.float16]) -> float:
    """Mean cosine of pairs of vectors: near 1 where the features have collapsed. NaN for fewer than two."""
    n = len(vectors_nD)
    if n < 2:
        return float("nan")
    unit = vectors_nD.astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True).clip(1e-12)
    total = float(np.square(np.linalg.norm(unit.sum(0, dtype=np.float64))))
    return float((total - n) / (n * (n - 1)))


def match(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> list[tuple[int, int, float]]:
    """Pairs (i, j, IoU) of two sets of masks of one image, each in one pair at most, largest IoU first.

    Greedy; pairs below MATCH_IOU are not made.
    """
    if not first or not second:
        return []
    iou = np.asarray(coco_mask.iou(first, second, [0] * len(second)))
    pairs = []
    while (best := float(iou.max())) >= MATCH_IOU:
        i, j = np.unravel_index(int(iou.argmax()), iou.shape)
        pairs.append((int(i), int(j), best))
        iou[i, :] = iou[:, j] = -1
    return pairs


def total_variation(first: Sequence[int], second: Sequence[int]) -> float:
    """Distance of two histograms over the same bins, 0 (equal) to 1 (nothing shared); an empty one is like any."""
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if not a.sum() or not b.sum():
        return 0.0 if a.sum() == b.sum() else 1.0
    return float(0.5 * np.abs(a / a.sum() - b / b.sum()).sum())
