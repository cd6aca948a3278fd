"""The candidates of one image, out of all hierarchies over its superpixels.

Shape legend: K candidates, N leaves, D channels, h w feature cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ....schemas.labels.merge import MergeConfig
from .draw import Sets
from .hierarchy import Affinity, merge_regions
from .score import best_regions, members, score_regions, support
from .superpixels import Floats, Ints, Leaves, pooled_features

_SHARE = 4  # candidates of a hierarchy before NMS, over the masks kept in the end


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """Candidates: their leaves [K, N], scores [K], mean unit features [K, D], and the hierarchy they are from [K]."""

    inside: Sets
    score: Floats
    features: Floats
    hierarchy: Ints


def propose_regions(leaves: Leaves, maps_Dhw: Sequence[Floats], config: MergeConfig) -> Regions:
    """Regions of a hierarchy for every scale of features and weight of edges, in this order.

    Scores of `score_regions` are multiplied by the squared `support`: what only one hierarchy sees counts less.
    """
    count = len(leaves.sizes)
    found: list[Regions] = []
    for map_Dhw in maps_Dhw:
        features_ND = pooled_features(leaves.labels, map_Dhw, count)
        for edge in config.edges:
            tree = merge_regions(leaves, features_ND, Affinity(config.color, edge, config.size_power))
            score_R = score_regions(leaves, tree)
            best = best_regions(tree, score_R, count, (config.min_area, config.max_area), _SHARE * config.max_masks)
            number = np.full(len(best), len(found), np.int64)
            mean = tree.features[best] / tree.size[best, None]
            found.append(Regions(members(tree, best, count), score_R[best], mean, number))
    inside_KN = np.concatenate([one.inside for one in found])
    hierarchy_K = np.concatenate([one.hierarchy for one in found])
    score_K = np.concatenate([one.score for one in found])
    score_K = score_K * support(inside_KN, hierarchy_K, leaves.sizes) ** 2
    return Regions(inside_KN, score_K, np.concatenate([one.features for one in found]), hierarchy_K)
