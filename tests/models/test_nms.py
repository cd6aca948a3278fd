import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from saliency_prompt.models.nms import (
    SUPPRESSIONS,
    Suppression,
    greedy_nms,
    iou_matrix,
    matrix_nms,
    soft_nms,
    suppress,
)

A = [1.0, 1, 0, 0]
B = [0.0, 0, 1, 1]


def decayed(masks: list[list[float]], kernel: str = "gaussian", scores: list[float] | None = None) -> list[float]:
    weights = torch.tensor([scores or [1.0] * len(masks)])
    return matrix_nms(torch.tensor([masks]), weights, kernel=kernel, gaussian_coeff=2.0)[0].tolist()  # type: ignore[arg-type]


def test_duplicates_decay_by_exp_of_minus_two() -> None:
    assert decayed([A, A, B]) == pytest.approx([1, 0.1353, 1], abs=1e-4)
    assert decayed([A, A, A, B]) == pytest.approx([1, 0.1353, 0.1353, 1], abs=1e-4)


def test_the_linear_kernel_defines_three_identical_masks() -> None:
    assert decayed([A, A, A, B], "linear") == pytest.approx([1, 0, 0, 1])


@pytest.mark.parametrize(
    ("maskness", "max_iou"), [(0.72, 0.119), (0.75, 0.186), (0.8, 0.258), (0.85, 0.312), (0.9, 0.354), (1.0, 0.422)]
)
def test_largest_overlap_that_survives_the_score_cut(maskness: float, max_iou: float) -> None:
    # two masks of 1,000 cells with the wanted IoU: inter / (2000 - inter) = iou
    for iou, survives in ((max_iou - 0.002, True), (max_iou + 0.002, False)):
        inter = round(2000 * iou / (1 + iou))
        masks = torch.zeros(1, 2, 2000)
        masks[0, 0, :1000] = 1
        masks[0, 1, 1000 - inter : 2000 - inter] = 1
        score = matrix_nms(masks, torch.tensor([[1.0, maskness]]), kernel="gaussian", gaussian_coeff=2.0)[0, 1]
        assert (score >= 0.7) == survives


def test_no_mask_gives_no_score() -> None:
    empty = matrix_nms(torch.zeros(2, 0, 9), torch.zeros(2, 0), kernel="gaussian", gaussian_coeff=2.0)
    assert empty.shape == (2, 0)
    assert greedy_nms(torch.zeros(2, 0, 9), torch.zeros(2, 0), iou_threshold=0.5).shape == (2, 0)


masks_and_scores = st.integers(1, 8).flatmap(
    lambda n: st.tuples(
        arrays(np.float32, (n, 12), elements=st.sampled_from([0.0, 1.0])),
        arrays(np.float32, n, elements=st.floats(0.125, 1, width=32)),
    )
)


@settings(deadline=None, max_examples=50)
@given(masks_and_scores, st.sampled_from(["gaussian", "linear"]))
def test_matrix_nms_equals_the_formula_written_as_loops(data: tuple[np.ndarray, np.ndarray], kernel: str) -> None:
    masks, scores = data[0], np.sort(data[1])[::-1]
    count = len(masks)
    iou = np.zeros((count, count))
    for i in range(count):
        for j in range(i + 1, count):
            union = np.maximum(masks[i], masks[j]).sum()
            iou[i, j] = (masks[i] * masks[j]).sum() / max(union, 1)

    def f(u: float) -> float:
        return math.exp(-2 * u * u) if kernel == "gaussian" else 1 - u

    expected = []
    for j in range(count):
        decays = [f(iou[i, j]) / max(f(max(iou[:i, i], default=0.0)), 1e-6) for i in range(j)]
        expected.append(scores[j] * min(decays, default=1.0))
    found = matrix_nms(
        torch.from_numpy(masks)[None],
        torch.tensor(scores.copy())[None],
        kernel=kernel,
        gaussian_coeff=2.0,  # type: ignore[arg-type]
    )[0]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-6)
    assert (found.numpy() <= scores + 1e-7).all()


@settings(deadline=None, max_examples=50)
@given(masks_and_scores, st.floats(0.1, 0.9))
def test_greedy_nms_keeps_a_cover_of_masks_that_overlap_little(
    data: tuple[np.ndarray, np.ndarray], threshold: float
) -> None:
    masks = torch.from_numpy(data[0])[None]
    scores = torch.from_numpy(np.sort(data[1])[::-1].copy())[None]
    kept = greedy_nms(masks, scores, iou_threshold=threshold)[0] > 0
    iou = iou_matrix(masks)[0]
    for j in range(len(kept)):
        hits = [i for i in range(j) if kept[i] and iou[i, j] > threshold]
        assert bool(kept[j]) == (not hits)


labelled = st.integers(1, 8).flatmap(
    lambda n: st.tuples(
        arrays(np.float32, (n, 12), elements=st.sampled_from([0.0, 1.0])),
        arrays(np.float32, n, elements=st.floats(0.125, 1, width=32)),
        arrays(np.int64, n, elements=st.integers(0, 2)),
    )
)


@settings(deadline=None, max_examples=50)
@given(labelled, st.sampled_from(SUPPRESSIONS), st.sampled_from(["gaussian", "linear"]))
def test_labels_are_suppressed_apart(
    data: tuple[np.ndarray, np.ndarray, np.ndarray], kind: Suppression, kernel: str
) -> None:
    masks, labels = torch.from_numpy(data[0]), torch.from_numpy(data[2])
    scores = torch.from_numpy(np.sort(data[1])[::-1].copy())
    together = suppress(kind, masks[None], scores[None], labels[None], kernel=kernel)[0]  # type: ignore[arg-type]
    for label in labels.unique():
        own = labels == label
        alone = suppress(kind, masks[None, own], scores[None, own], kernel=kernel)[0]  # type: ignore[arg-type]
        torch.testing.assert_close(together[own], alone)


@settings(deadline=None, max_examples=50)
@given(masks_and_scores)
def test_soft_nms_takes_the_best_of_what_is_left(data: tuple[np.ndarray, np.ndarray]) -> None:
    masks, scores = data[0], np.sort(data[1])[::-1].astype(np.float64)
    wanted, waiting = scores.copy(), list(range(len(scores)))
    while waiting:
        best = max(waiting, key=lambda i: (wanted[i], -i))
        waiting.remove(best)
        for j in waiting:
            union = np.maximum(masks[best], masks[j]).sum()
            wanted[j] *= math.exp(-2 * ((masks[best] * masks[j]).sum() / max(union, 1)) ** 2)
    found = soft_nms(torch.from_numpy(masks)[None], torch.tensor(scores[None], dtype=torch.float32), gaussian_coeff=2.0)
    np.testing.assert_allclose(np.sort(found[0].numpy()), np.sort(wanted), rtol=1e-4, atol=1e-6)


def test_fast_nms_counts_what_is_suppressed_itself() -> None:
    first, second, third = [1.0] * 4 + [0.0] * 4, [0.0] + [1.0] * 4 + [0.0] * 3, [0.0] * 2 + [1.0] * 4 + [0.0] * 2
    masks, scores = torch.tensor([[first, second, third]]), torch.tensor([[0.9, 0.8, 0.7]])
    kept = {name: suppress(name, masks, scores, iou_threshold=0.5)[0] > 0 for name in ("hard", "fast")}  # type: ignore[arg-type]
    assert kept["hard"].tolist() == [True, False, True]
    assert kept["fast"].tolist() == [True, False, False]


@pytest.mark.parametrize("kind", SUPPRESSIONS)
def test_every_kind_takes_nothing_and_batches(kind: Suppression) -> None:
    assert suppress(kind, torch.zeros(2, 0, 9), torch.zeros(2, 0), torch.zeros(2, 0)).shape == (2, 0)
    generator = torch.Generator().manual_seed(0)
    masks = (torch.rand(3, 6, 20, generator=generator) > 0.4).float()
    scores = torch.rand(3, 6, generator=generator).sort(descending=True).values
    whole = suppress(kind, masks, scores)
    for one, mask, score in zip(whole, masks, scores, strict=True):
        torch.testing.assert_close(one, suppress(kind, mask[None], score[None])[0])
