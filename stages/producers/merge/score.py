"""Which regions of a hierarchy are things: scores, and what is kept of several hierarchies over the same leaves.

Shape legend: N leaves, R regions, K candidates, M kept masks, D channels.
"""

import numpy as np
import numpy.typing as npt

from .hierarchy import Hierarchy
from .superpixels import Floats, Ints, Leaves

_FLAT = 0.05  # contrast to the frame and gradient that are taken for nothing
_ALIKE = 0.02  # the same of contrast to the region that is joined next


def score_regions(leaves: Leaves, tree: Hierarchy) -> Floats:
    """How much each region looks like a thing [R], 0..1.

    life x sqrt(contrast x difference) x edge x area^(1/4) x (1 - frame / 4). life: how much more unlike the next
    merge is than the last one, 0 for a root. contrast: 1 - cosine of the region to the image's frame, which is
    background mostly. difference: the same to the region that it is joined with next. edge: mean gradient over its
    border. area: as a share of the image. frame: the sum over the four borders of the image of the share that it
    covers, at most 2. The powers are measured (`benchmarks/masks.py`).
    """
    count = len(leaves.sizes)
    below = tree.parent < 0
    life = np.where(below, 0, tree.height[tree.parent] - tree.height)
    covered = _summed(frame_shares(leaves), tree, count)
    unit = tree.features / np.maximum(np.linalg.norm(tree.features, axis=1, keepdims=True), 1e-12)
    frame = (unit[:count] * covered[:count, None]).sum(0)
    partner = np.full(len(tree.parent), -1)
    partner[tree.children[:, 0]], partner[tree.children[:, 1]] = tree.children[:, 1], tree.children[:, 0]
    difference = np.where(partner < 0, 0, 1 - (unit * unit[partner]).sum(1))
    contrast = 1 - unit @ (frame / max(float(np.linalg.norm(frame)), 1e-12))
    area = tree.size / leaves.sizes.sum()
    factors = (
        np.maximum(life, 0)
        * np.sqrt((np.maximum(contrast, 0) + _FLAT) * (np.maximum(difference, 0) + _ALIKE))
        * (edge_strength(leaves, tree) + _FLAT)
        * area**0.25
        * (1 - np.minimum(covered, 2) / 4)
    )
    score: Floats = np.clip(factors, 0, 1).astype(np.float32)
    return score


def frame_shares(leaves: Leaves) -> Floats:
    """Sum over the four borders of the image of the share that a leaf covers [N]; all leaves together cover 4."""
    labels = leaves.labels
    count = len(leaves.sizes)
    shares = np.zeros(count)
    for border in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        shares += np.bincount(border, minlength=count) / len(border)
    return shares.astype(np.float32)


def edge_strength(leaves: Leaves, tree: Hierarchy) -> Floats:
    """Mean gradient over the border that a region has with others [R]; 0 where there is none."""
    count = len(leaves.sizes)
    around = np.zeros((count, 2))
    for side in (0, 1):
        np.add.at(around[:, 0], leaves.pairs[:, side], leaves.length)
        np.add.at(around[:, 1], leaves.pairs[:, side], leaves.edge)
    length = _summed(around[:, 0], tree, count, 2 * tree.length)
    edge = _summed(around[:, 1], tree, count, 2 * tree.edge)
    strength: Floats = np.where(length > 0.5, np.maximum(edge, 0) / np.maximum(length, 1), 0).astype(np.float32)
    return strength


def _summed(own_N: npt.NDArray[np.floating], tree: Hierarchy, count: int, less: Floats | None = None) -> Floats:
    """Values of leaves, summed up the tree [R]; at each merge, `less` [R - N] is taken off."""
    total = np.zeros(len(tree.parent))
    total[:count] = own_N
    for k, (a, b) in enumerate(tree.children.tolist()):
        total[count + k] = total[a] + total[b] - (0 if less is None else less[k])
    return total.astype(np.float32)


def best_regions(tree: Hierarchy, score_R: Floats, count: int, shares: tuple[float, float], most: int) -> Ints:
    """The best merged regions whose share of the image is between two bounds, best first, at most `most`."""
    share = tree.size / tree.size[:count].sum()
    candidates = np.flatnonzero((score_R > 0) & (share >= shares[0]) & (share <= shares[1]))
    candidates = candidates[candidates >= count]
    return candidates[np.argsort(-score_R[candidates], kind="stable")][:most]


def members(tree: Hierarchy, regions_K: Ints, count: int) -> npt.NDArray[np.bool_]:
    """The leaves of each region [K, N]."""
    inside = np.zeros((len(regions_K), count), bool)
    for k, region in enumerate(regions_K.tolist()):
        waiting = [region]
        while waiting:
            one = waiting.pop()
            if one < count:
                inside[k, one] = True
            else:
                waiting += tree.children[one - count].tolist()
    return inside


def overlaps(inside_KN: npt.NDArray[np.bool_], sizes_N: Floats) -> Floats:
    """IoU of sets of leaves, weighted by their size [K, K]."""
    sets = inside_KN.astype(np.float32)
    shared = (sets * sizes_N) @ sets.T  # sums of whole pixels: exact
    area = shared.diagonal()
    iou: Floats = (shared / np.maximum(area[:, None] + area[None] - shared, 1)).astype(np.float32)
    return iou


def support(inside_KN: npt.NDArray[np.bool_], hierarchy_K: Ints, sizes_N: Floats) -> Floats:
    """How well the hierarchies agree on each region [K]: the mean over them of the largest IoU that it has in one."""
    iou = overlaps(inside_KN, sizes_N)
    best = [iou[:, hierarchy_K == number].max(1) for number in np.unique(hierarchy_K)]
    mean: Floats = np.mean(best, axis=0, dtype=np.float32) if best else np.zeros(0, np.float32)
    return mean


def suppress_regions(
    inside_KN: npt.NDArray[np.bool_], score_K: Floats, sizes_N: Floats, iou_threshold: float, most: int
) -> Ints:
    """Greedy NMS over sets of the same leaves, weighted by their size: indices of what is kept, best first [M]."""
    order = np.argsort(-score_K, kind="stable")
    iou = overlaps(inside_KN[order], sizes_N)
    kept: list[int] = []
    gone = np.zeros(len(order), bool)
    for i in range(len(order)):
        if not gone[i]:
            kept.append(i)
            if len(kept) == most:
                break
            gone |= iou[i] > iou_threshold
    return order[np.array(kept, np.int64)]
