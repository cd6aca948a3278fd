"""Bottom-up merging of regions: neighbours that are each other's most alike join, in rounds.

The conquer step of UnSAM (Wang et al., Segment Anything without Supervision, section 3.2) on superpixels; colour and
edges join the features. A round joins all pairs that are each other's best, as Boruvka's algorithm and the chains of
nearest neighbours do: some forty rounds of few operations on arrays, in place of a heap. Several trees over the same
leaves are built at once.

Shape legend: T trees, N leaves, R = T (2 N - 1) regions, D channels, E pairs of neighbours.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .superpixels import Floats, Ints, Leaves

_LAB, _SIZE, _FRAME, _LENGTH, _EDGE = slice(-7, -4), -4, -3, -2, -1  # columns of sums, behind the features


@dataclass(frozen=True, slots=True)
class Affinity:
    """What makes neighbours unlike: 1 - cosine, plus weighted distance of colour and strength of their border.

    The sum is multiplied by (harmonic mean of both areas, as a share of the image) ^ `size_power`: small
    regions join first. `edges` has the border's weight in each tree.
    """

    color: float
    edges: tuple[float, ...]
    size_power: float


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """Binary trees over regions: the leaves of each tree in turn, then the merged ones in the order of merging.

    parent [R]: -1 for a root; a connected image has one root a tree. partner [R]: what it is merged with, -1 for a
    root. height [R]: how unlike the two were that a region was made of, 0 for leaves, and never below that of its
    parts. tree [R]. features [R, D], size, frame, length and edge [R]: sums of the leaves' features, pixels and shares
    of the image's frame, the length of the region's border with others and the gradient along it.
    place [T, N]: leaves are numbered so that those of a region have the numbers from first [R] to below last [R].
    """

    parent: Ints
    partner: Ints
    height: Floats
    tree: Ints
    features: Floats
    size: Floats
    frame: Floats
    length: Floats
    edge: Floats
    place: Ints
    first: Ints
    last: Ints

    def members(self, regions_K: Ints) -> npt.NDArray[np.bool_]:
        """The leaves of regions [K, N]."""
        place_KN = self.place[self.tree[regions_K]]
        inside: npt.NDArray[np.bool_] = place_KN >= self.first[regions_K, None]
        inside &= place_KN < self.last[regions_K, None]
        return inside


def merge_regions(leaves: Leaves, features_TND: Floats, affinity: Affinity) -> Forest:
    """Merge until no neighbours are left; features are sums over pixels of unit vectors."""
    trees, count, depth = features_TND.shape
    most, total = 2 * trees * count, float(leaves.sizes.sum())
    sums_RC = np.zeros((most, depth + 7), np.float32)
    own_NC = np.column_stack([leaves.colors, leaves.sizes, leaves.frame, *leaves.borders()])
    sums_RC[: trees * count, :depth] = features_TND.reshape(-1, depth)
    sums_RC[: trees * count, depth:] = np.tile(own_NC, (trees, 1))
    unit_RD, mean_R3 = np.empty((most, depth), np.float32), np.empty((most, 3), np.float32)
    tree_R, height_R = np.repeat(np.arange(trees), count), np.zeros(most, np.float32)
    tree_R = np.resize(tree_R, most)
    partner_R, parent_R = np.full(most, -1), np.full(most, -1)
    weight_T = np.array(affinity.edges, np.float32)

    def describe(regions: slice) -> None:
        sums = sums_RC[regions]
        norm = np.sqrt(np.einsum("rd,rd->r", sums[:, :depth], sums[:, :depth]))
        unit_RD[regions] = sums[:, :depth] / np.maximum(norm, 1e-12)[:, None]
        mean_R3[regions] = sums[:, _LAB] / sums[:, _SIZE, None]

    def unlike(a: Ints, b: Ints, length: Floats, edge: Floats) -> Floats:
        cost = np.maximum(1 - np.einsum("ed,ed->e", unit_RD[a], unit_RD[b]), 0)
        delta = mean_R3[a] - mean_R3[b]
        color = np.sqrt(np.einsum("ec,ec->e", delta, delta))
        cost += affinity.color * (color / (color + 20)) + weight_T[tree_R[a]] * (edge / length)
        if affinity.size_power:
            one, other = sums_RC[a, _SIZE], sums_RC[b, _SIZE]
            cost *= (2 * one * other / ((one + other) * total)) ** affinity.size_power
        result: Floats = cost.astype(np.float32, copy=False)
        return result

    new = trees * count
    describe(slice(0, new))
    shift_TE = np.arange(0, new, count)[:, None]
    a, b = (leaves.pairs[:, 0] + shift_TE).ravel(), (leaves.pairs[:, 1] + shift_TE).ravel()
    length, edge = np.tile(leaves.length, trees), np.tile(leaves.edge, trees)
    cost = unlike(a, b, length, edge)
    made: list[tuple[int, Ints, Ints]] = []
    while len(a):
        joined = mutual_best(a, b, cost, new)
        one, other, met = a[joined], b[joined], slice(new, new + int(joined.sum()))
        sums_RC[met] = sums_RC[one] + sums_RC[other]
        sums_RC[met, _LENGTH] -= 2 * length[joined]
        sums_RC[met, _EDGE] -= 2 * edge[joined]
        height_R[met] = np.maximum(cost[joined], np.maximum(height_R[one], height_R[other]))
        tree_R[met] = tree_R[one]
        describe(met)
        now = np.arange(met.stop)
        parent_R[one] = parent_R[other] = now[one] = now[other] = now[met]
        partner_R[one], partner_R[other] = other, one
        made.append((new, one, other))

        stays = ~joined
        a, b = now[a[stays]], now[b[stays]]
        length, edge, cost = length[stays], edge[stays], cost[stays]
        changed, same = np.maximum(a, b) >= new, np.maximum(a, b) < new
        keys = np.minimum(a, b)[changed] * most + np.maximum(a, b)[changed]
        unique, place = np.unique(keys, return_inverse=True)
        lower, upper = unique // most, unique % most
        its_length = np.bincount(place, length[changed], len(unique)).astype(np.float32)
        its_edge = np.bincount(place, edge[changed], len(unique)).astype(np.float32)
        cost = np.concatenate([cost[same], unlike(lower, upper, its_length, its_edge)])
        a, b = np.concatenate([a[same], lower]), np.concatenate([b[same], upper])
        length, edge = np.concatenate([length[same], its_length]), np.concatenate([edge[same], its_edge])
        new = met.stop
    first_R, last_R = _spans(made, parent_R[:new])
    return Forest(
        parent=parent_R[:new],
        partner=partner_R[:new],
        height=height_R[:new],
        tree=tree_R[:new],
        features=sums_RC[:new, :depth],
        size=sums_RC[:new, _SIZE],
        frame=sums_RC[:new, _FRAME],
        length=sums_RC[:new, _LENGTH],
        edge=sums_RC[:new, _EDGE],
        place=first_R[: trees * count].reshape(trees, count),
        first=first_R,
        last=last_R,
    )


def mutual_best(a: Ints, b: Ints, cost: Floats, regions: int) -> npt.NDArray[np.bool_]:
    """Which pairs are the best of both their regions; costs are not negative, and equal ones are put in mixed order.

    In the order of regions, a flat image would join one pair a round.
    """
    mixed = np.arange(len(a)) * 2654435761 & 0x7FFFFFFF  # an odd factor: no two alike
    keys = cost.view(np.int32).astype(np.int64) << 32 | mixed  # floats from 0 on are in the order of their bits
    best = np.full(regions, np.iinfo(np.int64).max)
    np.minimum.at(best, a, keys)
    np.minimum.at(best, b, keys)
    joined: npt.NDArray[np.bool_] = (best[a] == keys) & (best[b] == keys)
    return joined


def _spans(made: list[tuple[int, Ints, Ints]], parent_R: Ints) -> tuple[Ints, Ints]:
    """First and last (exclusive) number of the leaves of each region, from the last round to the first."""
    held = np.ones(len(parent_R), np.int64)
    for new, one, other in made:
        held[new : new + len(one)] = held[one] + held[other]
    first = np.zeros(len(parent_R), np.int64)
    roots = np.flatnonzero(parent_R < 0)
    first[roots] = np.cumsum(held[roots]) - held[roots]
    for new, one, other in reversed(made):
        first[one] = first[new : new + len(one)]
        first[other] = first[one] + held[one]
    return first, first + held
