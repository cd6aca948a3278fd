"""Which regions of a forest are things: scores, and what is kept of several trees over the same leaves.

Shape legend: T trees, N leaves, R regions, K candidates, M kept masks, D channels.
"""

import numpy as np
import numpy.typing as npt

from .hierarchy import Forest
from .superpixels import Floats, Ints

_FLAT = 0.05  # contrast to the frame and gradient that are taken for nothing
_ROUNDING = 1e-5  # a life below it is that of equal regions
_ALIKE = 0.02  # the same of contrast to the region that is joined next


def score_regions(forest: Forest) -> Floats:
    """How much each region looks like a thing [R], 0..1.

    life x sqrt(contrast x difference) x edge x area^(1/4) x (1 - frame / 4). life: how much more unlike the next
    merge is than the last one, 0 for a root. contrast: 1 - cosine of the region to the image's frame, which is
    background mostly. difference: the same to the region that it is joined with next. edge: mean gradient over its
    border. area: as a share of the image. frame: the sum over the four borders of the image of the share that it
    covers, at most 2. The powers are measured (`benchmarks/masks.py`).
    """
    trees, count = forest.place.shape
    leaves = trees * count
    life = np.where(forest.parent < 0, 0, forest.height[forest.parent] - forest.height)
    life = np.where(life > _ROUNDING, life, 0)
    unit = forest.features / np.maximum(np.linalg.norm(forest.features, axis=1, keepdims=True), 1e-12)
    around_TN1 = forest.frame[:leaves].reshape(trees, 1, count)
    frame_TD = (around_TN1 @ unit[:leaves].reshape(trees, count, -1))[:, 0]
    frame_TD /= np.maximum(np.linalg.norm(frame_TD, axis=1, keepdims=True), 1e-12)
    contrast = 1 - np.einsum("rd,rd->r", unit, frame_TD[forest.tree])
    difference = np.where(forest.partner < 0, 0, 1 - np.einsum("rd,rd->r", unit, unit[forest.partner]))
    area = forest.size / forest.size[:count].sum()
    factors = (
        life
        * np.sqrt((np.maximum(contrast, 0) + _FLAT) * (np.maximum(difference, 0) + _ALIKE))
        * (edge_strength(forest) + _FLAT)
        * area**0.25
        * (1 - np.minimum(forest.frame, 2) / 4)
    )
    score: Floats = np.clip(factors, 0, 1).astype(np.float32)
    return score


def edge_strength(forest: Forest) -> Floats:
    """Mean gradient over the border that a region has with others [R]; 0 where there is none."""
    edge, length = np.maximum(forest.edge, 0), forest.length
    strength: Floats = np.where(length > 0.5, edge / np.maximum(length, 1), 0).astype(np.float32)
    return strength


def best_regions(forest: Forest, score_R: Floats, shares: tuple[float, float], most: int) -> Ints:
    """The best merged regions whose share of the image is between two bounds, at most `most` a tree.

    Tree by tree, best first.
    """
    trees, count = forest.place.shape
    share = forest.size / forest.size[:count].sum()
    candidates = np.flatnonzero((score_R > 0) & (share >= shares[0]) & (share <= shares[1]))
    candidates = candidates[candidates >= trees * count]
    candidates = candidates[np.argsort(-score_R[candidates], kind="stable")]
    tree = forest.tree[candidates]
    return np.concatenate([candidates[tree == t][:most] for t in range(trees)])


def overlaps(inside_KN: npt.NDArray[np.bool_], sizes_N: Floats) -> Floats:
    """IoU of sets of leaves, weighted by their size [K, K]."""
    sets = inside_KN.astype(np.float32)
    shared = (sets * sizes_N) @ sets.T  # sums of whole pixels: exact
    area = shared.diagonal()
    iou: Floats = (shared / np.maximum(area[:, None] + area[None] - shared, 1)).astype(np.float32, copy=False)
    return iou


def support(iou_KK: Floats, tree_K: Ints) -> Floats:
    """How well the trees agree on each region [K]: the mean over them of the largest IoU that it has in one."""
    best = [iou_KK[:, tree_K == number].max(1) for number in np.unique(tree_K)]
    mean: Floats = np.mean(best, axis=0, dtype=np.float32) if best else np.zeros(0, np.float32)
    return mean


def suppress_regions(iou_KK: Floats, score_K: Floats, iou_threshold: float, most: int) -> Ints:
    """Greedy NMS: indices of what is kept, best first [M]."""
    kept: list[int] = []
    over_KK = iou_KK > iou_threshold
    gone = np.zeros(len(score_K), bool)
    for i in np.argsort(-score_K, kind="stable").tolist():
        if not gone[i]:
            kept.append(i)
            if len(kept) == most:
                break
            gone |= over_KK[i]
    return np.array(kept, np.int64)
