import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from saliency_prompt.stages.producers.merge.draw import runs_of_sets
from saliency_prompt.stages.producers.merge.hierarchy import Affinity, Forest, merge_regions, mutual_best
from saliency_prompt.stages.producers.merge.score import (
    best_regions,
    edge_strength,
    overlaps,
    score_regions,
    support,
    suppress_regions,
)
from saliency_prompt.stages.producers.merge.superpixels import Leaves, neighbours

Merged = dict[frozenset[int], float]  # heights of regions


def grid_leaves(seed: int, rows: int = 4, columns: int = 5) -> tuple[Leaves, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns).repeat(3, 0).repeat(4, 1)
    pairs, length, edge = neighbours(labels, rng.random(labels.shape, np.float32))
    sizes = np.full(rows * columns, 12, np.float32)
    colors = 12 * rng.uniform(0, 100, (rows * columns, 3)).astype(np.float32)
    features = rng.standard_normal((rows * columns, 6)).astype(np.float32)
    return Leaves(labels, sizes, colors, pairs, length, edge), features


def slow_merge(leaves: Leaves, features: np.ndarray, affinity: Affinity, weight: float) -> Merged:
    """Every round looks at all pairs of regions, computed from their leaves, and joins those that choose each other."""
    total = float(leaves.sizes.sum())
    border = {tuple(p): (n, e) for p, n, e in zip(leaves.pairs.tolist(), leaves.length, leaves.edge, strict=True)}
    regions = [frozenset([i]) for i in range(len(leaves.sizes))]
    height = dict.fromkeys(regions, 0.0)
    made: Merged = {}

    def cost(a: frozenset[int], b: frozenset[int]) -> float | None:
        met = [v for (i, j), v in border.items() if (i in a and j in b) or (i in b and j in a)]
        if not met:
            return None
        fa, fb = (features[list(r)].sum(0) for r in (a, b))
        size_a, size_b = (float(leaves.sizes[list(r)].sum()) for r in (a, b))
        delta = leaves.colors[list(a)].sum(0) / size_a - leaves.colors[list(b)].sum(0) / size_b
        color = float(np.linalg.norm(delta))
        unlike = 1 - float(fa @ fb / np.linalg.norm(fa) / np.linalg.norm(fb))
        unlike += affinity.color * color / (color + 20)
        unlike += weight * sum(float(e) for _, e in met) / sum(float(n) for n, _ in met)
        return unlike * (2 * size_a * size_b / (size_a + size_b) / total) ** affinity.size_power

    while len(regions) > 1:
        costs = {(a, b): c for a in regions for b in regions if a != b and (c := cost(a, b)) is not None}
        choice = {a: min((c, b) for (x, b), c in costs.items() if x == a)[1] for a in regions}
        for a in list(regions):
            b = choice[a]
            if choice[b] == a and a in regions:
                both = a | b
                made[both] = height[both] = max(costs[a, b], height[a], height[b])
                regions = [r for r in regions if r not in (a, b)] + [both]
    return made


def found(forest: Forest, tree: int = 0) -> Merged:
    merged = np.flatnonzero((forest.tree == tree) & (np.arange(len(forest.tree)) >= forest.place.size))
    sets = [frozenset(np.flatnonzero(row).tolist()) for row in forest.members(merged)]
    return dict(zip(sets, forest.height[merged].tolist(), strict=True))


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**16), st.sampled_from([Affinity(0, (0,), 0), Affinity(0.3, (1, 0.2), 0.3)]))
def test_as_looking_at_all_pairs(seed: int, affinity: Affinity) -> None:
    leaves, features = grid_leaves(seed)
    forest = merge_regions(leaves, np.stack([features] * len(affinity.edges)), affinity)
    for tree, weight in enumerate(affinity.edges):
        expected, merged = slow_merge(leaves, features, affinity, weight), found(forest, tree)
        assert set(merged) == set(expected)
        for region, height in expected.items():
            np.testing.assert_allclose(merged[region], height, rtol=1e-4, atol=1e-6)


def test_a_tree_is_a_tree() -> None:
    leaves, features = grid_leaves(5)
    forest = merge_regions(leaves, np.stack([features, -features]), Affinity(0.05, (1, 0), 0.3))
    assert (forest.parent < 0).sum() == 2
    assert len(forest.parent) == 2 * 39
    below = forest.parent >= 0
    assert (forest.parent > np.arange(78))[below].all()
    assert (forest.height[forest.parent] >= forest.height)[below].all()
    np.testing.assert_array_equal(forest.partner[forest.partner[below]], np.flatnonzero(below))
    np.testing.assert_array_equal(forest.parent[forest.partner[below]], forest.parent[below])
    np.testing.assert_array_equal(forest.tree[forest.parent[below]], forest.tree[below])
    inside = forest.members(np.arange(78))
    np.testing.assert_array_equal(inside[forest.partner[below]] & inside[below], False)
    np.testing.assert_array_equal((inside[forest.parent[below]] | inside[below]), inside[forest.parent[below]])
    np.testing.assert_array_equal(forest.size, inside @ leaves.sizes)
    np.testing.assert_allclose(forest.frame, inside @ leaves.frame, atol=1e-5)
    roots = np.flatnonzero(~below)
    sign = np.array([[1], [-1]])[forest.tree[roots]]
    np.testing.assert_allclose(forest.features[roots], sign * features.sum(0), atol=1e-4)


def test_edges_of_regions_as_counted_from_their_leaves() -> None:
    leaves, features = grid_leaves(9)
    forest = merge_regions(leaves, features[None], Affinity(0, (1,), 0))
    strength = edge_strength(forest)
    for region, mine in enumerate(forest.members(np.arange(39))):
        cut = mine[leaves.pairs[:, 0]] != mine[leaves.pairs[:, 1]]
        expected = leaves.edge[cut].sum() / leaves.length[cut].sum() if cut.any() else 0
        np.testing.assert_allclose(strength[region], expected, atol=1e-4)


def test_equal_costs_join_many_pairs_a_round() -> None:
    a, b = np.arange(999), np.arange(1, 1000)
    joined = mutual_best(a, b, np.zeros(999, np.float32), 1000)
    assert joined.sum() > 200
    assert np.bincount(np.concatenate([a[joined], b[joined]])).max() == 1
    assert mutual_best(a, b, np.linspace(1, 2, 999, dtype=np.float32), 1000).tolist() == [True] + [False] * 998


def test_a_thing_unlike_its_surroundings_scores_best() -> None:
    leaves, features = grid_leaves(1, 6, 6)
    thing = np.zeros((6, 6), bool)
    thing[2:4, 2:4] = True
    features = np.where(thing.reshape(-1, 1), [[0, 1, 0]], [[1, 0, 0]]).astype(np.float32)
    features += np.random.default_rng(0).normal(0, 0.05, features.shape).astype(np.float32)
    forest = merge_regions(leaves, features[None], Affinity(0, (0,), 0))
    score = score_regions(forest)
    best = best_regions(forest, score, (0.01, 0.9), 5)
    assert forest.members(best[:1])[0].reshape(6, 6).tolist() == thing.tolist()
    assert 0 <= score.min() <= score.max() <= 1
    assert score[-1] == 0


def test_nms_keeps_the_better_of_two_alike() -> None:
    inside = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 1], [1, 1, 0, 0]], bool)
    sizes = np.array([5, 5, 5, 1], np.float32)
    score = np.array([0.3, 0.9, 0.5, 0.4], np.float32)
    assert suppress_regions(overlaps(inside, sizes), score, 0.7, 10).tolist() == [1, 2, 3]
    assert suppress_regions(overlaps(inside, sizes), score, 0.99, 10).tolist() == [1, 2, 3, 0]
    assert suppress_regions(overlaps(inside, sizes), score, 0.7, 2).tolist() == [1, 2]
    assert suppress_regions(overlaps(inside[:0], sizes), score[:0], 0.7, 2).tolist() == []


def test_runs_are_those_of_the_drawn_masks() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 6, (9, 11)).astype(np.int32)
    inside = np.zeros((4, 6), bool)
    inside[0, [0, 3]] = inside[1, 5] = inside[2] = inside[3, :3] = True
    height, width = 20, 17
    runs = runs_of_sets(inside, labels, height, width)
    rows, columns = ((2 * np.arange(n) + 1) * m // (2 * n) for n, m in ((height, 9), (width, 11)))
    drawn = inside[:, labels[rows[:, None], columns[None]]]
    bounds = np.append(runs.first, len(runs.start))
    for k in range(4):
        flat = np.zeros(height * width, bool)
        for run in range(bounds[k], bounds[k + 1]):
            flat[runs.start[run] : runs.end[run]] = True
        np.testing.assert_array_equal(flat.reshape(width, height).T, drawn[runs.index[k]])


def test_support_is_the_mean_of_the_best_overlaps() -> None:
    inside = np.array([[1, 1, 0], [1, 1, 1], [0, 0, 1]], bool)
    sizes = np.array([1, 1, 2], np.float32)
    mean = support(overlaps(inside, sizes), np.array([0, 1, 1]))
    np.testing.assert_allclose(mean, [(1 + 0.5) / 2, (0.5 + 1) / 2, (0 + 1) / 2])
    assert support(overlaps(inside[:0], sizes), np.zeros(0, np.int64)).shape == (0,)
