"""Candidates for masks: regions of trees for every scale of features and every weight of edges.

Shape legend: T trees, N leaves, K candidates, D channels, h w feature cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ....schemas.labels.merge import MergeConfig
from .draw import Sets
from .hierarchy import Affinity, merge_regions
from .score import best_regions, overlaps, score_regions, support
from .superpixels import Floats, Ints, Leaves, pooled_features

_SHARE = 2  # candidates of a tree before NMS, over the masks kept in the end
_CHANNELS = 64  # of a photograph's 384 or more, its cells need no more


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """Candidates: leaves [K, N], overlaps [K, K], scores [K], mean features [K, D], and the tree each is from [K]."""

    inside: Sets
    iou: Floats
    score: Floats
    features: Floats
    tree: Ints


def propose_regions(leaves: Leaves, maps_Dhw: Sequence[Floats], config: MergeConfig) -> Regions:
    """Regions of a tree for every scale of features and weight of edges, in this order.

    Scores of `score_regions` are multiplied by the squared `support`: what only one tree sees counts less.
    """
    pairs = [principal(map_Dhw, _CHANNELS) for map_Dhw in maps_Dhw]
    pooled = np.stack([pooled_features(leaves, few_hwC) for few_hwC, _ in pairs])
    trees = len(config.edges)
    affinity = Affinity(config.color, config.edges * len(maps_Dhw), config.size_power)
    forest = merge_regions(leaves, np.repeat(pooled, trees, axis=0), affinity)
    score_R = score_regions(forest)
    best = best_regions(forest, score_R, (config.min_area, config.max_area), _SHARE * config.max_masks)
    inside_KN, tree_K = forest.members(best), forest.tree[best]
    iou_KK = overlaps(inside_KN, leaves.sizes)
    mean_KC = forest.features[best] / forest.size[best, None]
    features = [mean_KC[tree_K // trees == scale] @ basis.T for scale, (_, basis) in enumerate(pairs)]
    score_K: Floats = score_R[best] * support(iou_KK, tree_K) ** 2
    return Regions(inside_KN, iou_KK, score_K, np.concatenate(features), tree_K)


def principal(map_Dhw: Floats, channels: int) -> tuple[Floats, Floats]:
    """Unit features of cells in a space of few dimensions that holds nearly all of them [h, w, C]; its basis [D, C].

    The basis comes of one subspace iteration (Halko et al., Finding structure with randomness, section 4.5) from cells
    spread evenly over the image, in place of random vectors. No mean is removed.
    """
    depth, height, width = map_Dhw.shape
    cells_KD = np.ascontiguousarray(map_Dhw.reshape(depth, -1).T)
    cells_KD /= np.maximum(np.linalg.norm(cells_KD, axis=1, keepdims=True), 1e-12)
    if depth <= channels:
        return cells_KD.reshape(height, width, depth), np.eye(depth, dtype=np.float32)
    chosen = np.unique(np.linspace(0, len(cells_KD) - 1, channels).astype(np.int64))
    basis_DC, _ = np.linalg.qr(cells_KD.T @ (cells_KD @ cells_KD[chosen].T))
    basis_DC = np.pad(basis_DC, ((0, 0), (0, channels - basis_DC.shape[1])))  # of fewer cells
    return (cells_KD @ basis_DC).reshape(height, width, channels), basis_DC
