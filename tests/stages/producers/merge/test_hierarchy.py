import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from saliency_prompt.stages.producers.merge.draw import runs_of_sets
from saliency_prompt.stages.producers.merge.hierarchy import Affinity, merge_regions
from saliency_prompt.stages.producers.merge.score import (
    best_regions,
    edge_strength,
    members,
    score_regions,
    support,
    suppress_regions,
)
from saliency_prompt.stages.producers.merge.superpixels import Leaves, neighbours


def grid_leaves(seed: int, rows: int = 4, columns: int = 5) -> tuple[Leaves, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns).repeat(3, 0).repeat(4, 1)
    pairs, length, edge = neighbours(labels, rng.random(labels.shape, np.float32))
    sizes = np.full(rows * columns, 12, np.float32)
    colors = 12 * rng.uniform(0, 100, (rows * columns, 3)).astype(np.float32)
    features = rng.standard_normal((rows * columns, 6)).astype(np.float32)
    return Leaves(labels, sizes, colors, pairs, length, edge), features


def slow_merge(leaves: Leaves, features: np.ndarray, affinity: Affinity) -> list[tuple[frozenset[int], float]]:
    """Every round looks at all pairs of regions, each computed from its leaves."""
    labels, total = leaves.labels, float(leaves.sizes.sum())
    border = {tuple(p): (n, e) for p, n, e in zip(leaves.pairs.tolist(), leaves.length, leaves.edge, strict=True)}
    regions = [frozenset([i]) for i in range(labels.max() + 1)]
    height = dict.fromkeys(regions, 0.0)
    made = []

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
        unlike += affinity.edge * sum(float(e) for _, e in met) / sum(float(n) for n, _ in met)
        return unlike * (2 * size_a * size_b / (size_a + size_b) / total) ** affinity.size_power

    while len(regions) > 1:
        costs = [
            (c, i, j)
            for i in range(len(regions))
            for j in range(i + 1, len(regions))
            if (c := cost(regions[i], regions[j])) is not None
        ]
        c, i, j = min(costs)
        height[regions[i] | regions[j]] = max(c, height[regions[i]], height[regions[j]])
        made.append((regions[i] | regions[j], height[regions[i] | regions[j]]))
        regions = [r for k, r in enumerate(regions) if k not in (i, j)] + [regions[i] | regions[j]]
    return made


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**16), st.sampled_from([Affinity(0, 0, 0), Affinity(0.3, 1, 0.3), Affinity(0, 2, 0)]))
def test_as_looking_at_all_pairs(seed: int, affinity: Affinity) -> None:
    leaves, features = grid_leaves(seed)
    tree = merge_regions(leaves, features, affinity)
    made = slow_merge(leaves, features, affinity)
    inside = members(tree, np.arange(20, 39), 20)
    assert [frozenset(np.flatnonzero(row).tolist()) for row in inside] == [region for region, _ in made]
    np.testing.assert_allclose(tree.height[20:], [height for _, height in made], rtol=1e-4, atol=1e-6)


def test_a_tree_is_a_tree() -> None:
    leaves, features = grid_leaves(5)
    tree = merge_regions(leaves, features, Affinity(0.05, 1, 0.3))
    assert (tree.parent < 0).sum() == 1
    assert (tree.parent[:-1] > np.arange(38)).all()
    assert (tree.height[tree.parent[:-1]] >= tree.height[:-1]).all()
    np.testing.assert_array_equal(tree.size[20:], members(tree, np.arange(20, 39), 20) @ leaves.sizes)
    np.testing.assert_allclose(tree.features[-1], features.sum(0), rtol=1e-4)


def test_edges_of_regions_as_counted_from_their_leaves() -> None:
    leaves, features = grid_leaves(9)
    tree = merge_regions(leaves, features, Affinity(0, 1, 0))
    strength = edge_strength(leaves, tree)
    for region in range(39):
        mine = members(tree, np.array([region]), 20)[0]
        cut = mine[leaves.pairs[:, 0]] != mine[leaves.pairs[:, 1]]
        expected = leaves.edge[cut].sum() / leaves.length[cut].sum() if cut.any() else 0
        np.testing.assert_allclose(strength[region], expected, atol=1e-4)


def test_a_thing_unlike_its_surroundings_scores_best() -> None:
    leaves, features = grid_leaves(1, 6, 6)
    thing = np.zeros((6, 6), bool)
    thing[2:4, 2:4] = True
    features = np.where(thing.reshape(-1, 1), [[0, 1, 0]], [[1, 0, 0]]).astype(np.float32)
    features += np.random.default_rng(0).normal(0, 0.05, features.shape).astype(np.float32)
    tree = merge_regions(leaves, features, Affinity(0, 0, 0))
    score = score_regions(leaves, tree)
    best = best_regions(tree, score, 36, (0.01, 0.9), 5)
    assert members(tree, best[:1], 36)[0].reshape(6, 6).tolist() == thing.tolist()
    assert 0 <= score.min() <= score.max() <= 1
    assert score[-1] == 0


def test_nms_keeps_the_better_of_two_alike() -> None:
    inside = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 1], [1, 1, 0, 0]], bool)
    sizes = np.array([5, 5, 5, 1], np.float32)
    score = np.array([0.3, 0.9, 0.5, 0.4], np.float32)
    assert suppress_regions(inside, score, sizes, 0.7, 10).tolist() == [1, 2, 3]
    assert suppress_regions(inside, score, sizes, 0.99, 10).tolist() == [1, 2, 3, 0]
    assert suppress_regions(inside, score, sizes, 0.7, 2).tolist() == [1, 2]
    assert suppress_regions(inside[:0], score[:0], sizes, 0.7, 2).tolist() == []


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
    found = support(inside, np.array([0, 1, 1]), sizes)
    np.testing.assert_allclose(found, [(1 + 0.5) / 2, (0.5 + 1) / 2, (0 + 1) / 2])
    assert support(inside[:0], np.zeros(0, np.int64), sizes).shape == (0,)
