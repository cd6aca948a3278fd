import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from saliency_prompt.stages.referring.metrics import (
    ClassOverlap,
    boundary_accuracy,
    overlap,
    referring_scores,
    region_similarity,
    salient_f,
)


def test_referring_scores_by_hand() -> None:
    scores = referring_scores([4, 0, 0], [8, 4, 0])
    assert scores["oIoU"] == pytest.approx(4 / 12)
    assert scores["mIoU"] == pytest.approx((0.5 + 0 + 1) / 3)  # nothing meant and nothing found is right
    assert scores["P@0.5"] == pytest.approx(1 / 3)


def test_overlap_agrees_with_torchmetrics() -> None:
    torchmetrics = pytest.importorskip("torchmetrics")
    rng = np.random.default_rng(0)
    found, truth = rng.random((3, 20, 30)) > 0.4, rng.random((3, 20, 30)) > 0.6
    pairs = [overlap(a, b) for a, b in zip(found, truth, strict=True)]
    metric = torchmetrics.JaccardIndex(task="binary")
    metric.update(torch.from_numpy(found), torch.from_numpy(truth))
    mine = referring_scores([a for a, _ in pairs], [b for _, b in pairs])["oIoU"]
    assert mine == pytest.approx(metric.compute().item(), abs=1e-6)


def test_miou_agrees_with_torchmetrics() -> None:
    torchmetrics = pytest.importorskip("torchmetrics")
    rng = np.random.default_rng(0)
    mine = ClassOverlap.of(5)
    metric = torchmetrics.JaccardIndex(task="multiclass", num_classes=5, ignore_index=255)
    for _ in range(3):
        found, truth = rng.integers(0, 5, (16, 16)), rng.integers(0, 5, (16, 16))
        truth[rng.random((16, 16)) < 0.2] = 255
        mine.add(found, truth)
        metric.update(torch.from_numpy(found)[None], torch.from_numpy(truth)[None])
    assert mine.mean() == pytest.approx(metric.compute().item(), abs=1e-6)


def test_salient_f_agrees_with_torchmetrics() -> None:
    functional = pytest.importorskip("torchmetrics.functional.classification")
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (12, 9))
    truth = rng.random((12, 9)) > 0.7
    expected = [
        functional.binary_fbeta_score(torch.from_numpy(values >= cut), torch.from_numpy(truth), beta=0.3**0.5).item()
        for cut in range(1, 256)
    ]
    assert salient_f((values / 255).astype(np.float32), truth) == pytest.approx(np.mean(expected), abs=1e-6)


@given(arrays(bool, (12, 15)))
def test_perfect_masks_score_one(mask: np.ndarray) -> None:
    assert region_similarity(mask, mask) == 1
    assert boundary_accuracy(mask, mask) == 1
    if mask.any():
        assert salient_f(mask.astype(np.float32), mask) == pytest.approx(1, abs=1e-6)


@given(st.integers(0, 3))
def test_a_boundary_counts_within_its_tolerance(shift: int) -> None:
    truth = np.zeros((100, 100), bool)
    truth[30:60, 30:60] = True
    found = np.roll(truth, shift, 1)
    assert (boundary_accuracy(found, truth) == 1) == (shift <= 2)  # ceil(.008 * 141) = 2


def test_one_side_empty_scores_nothing() -> None:
    empty, full = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    full[2:4, 2:4] = True
    assert region_similarity(empty, full) == boundary_accuracy(empty, full) == boundary_accuracy(full, empty) == 0
