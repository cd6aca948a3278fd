"""Statistics of masks and vectors against slow references."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from saliency_prompt.stages.statistics import (
    MATCH_IOU,
    border_sides,
    coverage,
    match,
    mean_cosine,
    overlap,
    rles,
    total_variation,
)

HEIGHT, WIDTH = 12, 16


def draw(seed: int, n: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    masks = np.zeros((n, HEIGHT, WIDTH), np.uint8)
    for mask in masks:
        y, x = rng.integers(0, HEIGHT - 3), rng.integers(0, WIDTH - 3)
        mask[y : y + rng.integers(2, 8), x : x + rng.integers(2, 8)] = 1
    return masks


def encode(masks: np.ndarray) -> list[dict[str, object]]:
    counts = [coco_mask.encode(np.asfortranarray(mask))["counts"] for mask in masks]
    return rles(counts, HEIGHT, WIDTH)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@given(st.integers(0, 10_000), st.integers(0, 6))
def test_overlap_and_coverage_agree_with_pixels(seed: int, n: int) -> None:
    masks = draw(seed, n)
    want = [max(iou(masks[i], masks[j]) for j in range(i)) for i in range(1, n)]
    np.testing.assert_allclose(overlap(encode(masks)), want)
    assert coverage(encode(masks)) == pytest.approx(masks.any(0).mean() if n else 0)


@given(st.integers(0, 10_000), st.integers(0, 5), st.integers(0, 5))
def test_matching_pairs_each_mask_once_and_the_best_first(seed: int, n: int, m: int) -> None:
    first, second = draw(seed, n), draw(seed + 1, m)
    pairs = match(encode(first), encode(second))
    assert len({i for i, _, _ in pairs}) == len({j for _, j, _ in pairs}) == len(pairs)
    values = [value for _, _, value in pairs]
    assert values == sorted(values, reverse=True)
    for i, j, value in pairs:
        assert value == pytest.approx(iou(first[i], second[j]))
        assert value >= MATCH_IOU
    left = [(i, j) for i in range(n) for j in range(m)]
    free = [p for p in left if p[0] not in {i for i, _, _ in pairs} and p[1] not in {j for _, j, _ in pairs}]
    assert all(iou(first[i], second[j]) < MATCH_IOU for i, j in free)


def test_a_set_of_masks_matches_itself_wholly() -> None:
    masks = encode(draw(3, 1)) + encode(draw(4, 1))
    assert [value for _, _, value in match(masks, masks)] == [1, 1]


def test_border_sides_counts_the_sides_touched() -> None:
    boxes = np.array([[0, 0, 16, 12], [0, 3, 4, 4], [5, 5, 2, 2], [12, 8, 4, 4]], np.float32)
    sides = border_sides(boxes, np.full(4, WIDTH), np.full(4, HEIGHT))
    assert sides.tolist() == [4, 1, 0, 2]


def test_mean_cosine_is_that_of_all_pairs() -> None:
    vectors = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float16)
    unit = vectors.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    pairs = [unit[i] @ unit[j] for i in range(30) for j in range(i)]
    assert mean_cosine(vectors) == pytest.approx(np.mean(pairs), abs=1e-4)
    assert mean_cosine(np.ones((5, 4), np.float16)) == pytest.approx(1)
    assert np.isnan(mean_cosine(vectors[:1]))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.integers(1, 9))
def test_total_variation_knows_shapes_only(counts: list[int], factor: int) -> None:
    assert total_variation(counts, [c * factor for c in counts]) == pytest.approx(0)
    assert total_variation([5, 0], [0, 7]) == 1
    assert total_variation([1, 1], [1, 0]) == pytest.approx(0.5)
