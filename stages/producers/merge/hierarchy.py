"""Bottom-up merging of regions: the most alike neighbours first.

The conquer step of UnSAM (Wang et al., Segment Anything without Supervision, section 3.2) on superpixels, with a heap;
colour and edges join the features. Shape legend: N leaves, R = 2 N - 1 regions, D channels, E pairs of neighbours.
"""

import heapq
from dataclasses import dataclass

import numpy as np

from .superpixels import Floats, Ints, Leaves


@dataclass(frozen=True, slots=True)
class Affinity:
    """What makes neighbours unlike: 1 - cosine, plus weighted distance of colour and strength of their border.

    The sum is multiplied by (harmonic mean of both areas, as a share of the image) ^ `size_power`: small
    regions join first.
    """

    color: float
    edge: float
    size_power: float


@dataclass(frozen=True, slots=True, eq=False)
class Hierarchy:
    """A binary tree over regions: the N leaves, then the merged ones in the order of merging.

    parent [R]: -1 for a root; height [R]: how unlike the two were that a region was made of, 0 for leaves, and never
    below that of its parts; children [R - N, 2]. A connected image has one root. features [R, D] and size [R]: sums of
    the leaves'. length, edge [R - N]: the border between the two, and the sum of the gradient over it.
    """

    parent: Ints
    height: Floats
    children: Ints
    features: Floats
    size: Floats
    length: Floats
    edge: Floats


def merge_regions(leaves: Leaves, features_ND: Floats, affinity: Affinity) -> Hierarchy:
    """Merge until no neighbours are left; features are sums over pixels of unit vectors. Ties go to the older ones."""
    count = len(leaves.sizes)
    most = 2 * count - 1
    sums_RD = np.zeros((most, features_ND.shape[1]), np.float32)
    unit_RD = np.zeros_like(sums_RD)
    color_R3 = np.zeros((most, 3), np.float32)
    mean_R3 = np.zeros((most, 3), np.float32)
    size_R = np.zeros(most, np.float32)
    sums_RD[:count], color_R3[:count], size_R[:count] = features_ND, leaves.colors, leaves.sizes
    unit_RD[:count] = sums_RD[:count] / np.maximum(np.linalg.norm(sums_RD[:count], axis=1, keepdims=True), 1e-12)
    mean_R3[:count] = color_R3[:count] / size_R[:count, None]
    total = float(leaves.sizes.sum())

    def unlike(one: Ints, other: Ints, length: Floats, edge: Floats) -> Floats:
        cosine = (unit_RD[one] * unit_RD[other]).sum(1)
        delta = mean_R3[one] - mean_R3[other]
        color = np.sqrt((delta * delta).sum(1))
        cost = (1 - cosine) + affinity.color * (color / (color + 20)) + affinity.edge * (edge / length)
        if affinity.size_power:
            a, b = size_R[one], size_R[other]
            cost = cost * (2 * a * b / ((a + b) * total)) ** affinity.size_power
        result: Floats = cost
        return result

    borders: list[dict[int, tuple[float, float]]] = [{} for _ in range(most)]
    first = unlike(leaves.pairs[:, 0], leaves.pairs[:, 1], leaves.length, leaves.edge)
    heap = [(float(d), int(a), int(b)) for d, (a, b) in zip(first, leaves.pairs, strict=True)]
    for (a, b), length, edge in zip(leaves.pairs.tolist(), leaves.length.tolist(), leaves.edge.tolist(), strict=True):
        borders[a][b] = borders[b][a] = (length, edge)
    heapq.heapify(heap)
    parent = np.full(most, -1, np.int64)
    height = np.zeros(most, np.float32)
    children = np.zeros((most - count, 2), np.int64)
    between = np.zeros((most - count, 2), np.float32)
    alive = [True] * count + [False] * (most - count)
    new = count
    while heap:
        cost, a, b = heapq.heappop(heap)
        if not (alive[a] and alive[b]):
            continue
        alive[a] = alive[b] = False
        alive[new] = True
        parent[a] = parent[b] = new
        children[new - count] = a, b
        between[new - count] = borders[a][b]
        height[new] = max(cost, height[a], height[b])
        sums_RD[new] = sums_RD[a] + sums_RD[b]
        unit_RD[new] = sums_RD[new] / max(float(np.linalg.norm(sums_RD[new])), 1e-12)
        color_R3[new] = color_R3[a] + color_R3[b]
        size_R[new] = size_R[a] + size_R[b]
        mean_R3[new] = color_R3[new] / size_R[new]
        mine = borders[a] if len(borders[a]) >= len(borders[b]) else borders[b]
        for other, (length, edge) in (borders[b] if mine is borders[a] else borders[a]).items():
            held = mine.get(other)
            mine[other] = (length, edge) if held is None else (held[0] + length, held[1] + edge)
        borders[a] = borders[b] = {}
        mine.pop(a, None)
        mine.pop(b, None)
        borders[new] = mine
        if mine:
            others = np.fromiter(mine, np.int64, len(mine))
            both = np.array(list(mine.values()), np.float32)
            costs = unlike(np.array([new]), others, both[:, 0], both[:, 1]).tolist()
            for other, border, cost in zip(others.tolist(), list(mine.values()), costs, strict=True):
                near = borders[other]
                near.pop(a, None)
                near.pop(b, None)
                near[new] = border
                heapq.heappush(heap, (cost, other, new))
        new += 1
    made = new - count
    return Hierarchy(
        parent[:new], height[:new], children[:made], sums_RD[:new], size_R[:new], between[:made, 0], between[:made, 1]
    )
