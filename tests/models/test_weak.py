"""The losses of coarse masks against loops, known values, and finite differences."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from saliency_prompt.models.weak import (
    STRIDE,
    cosine_loss,
    find_affinity,
    lab_of,
    pairwise_sums,
    projection_loss,
    shorten,
    tight_box,
)


def number(value: Tensor | float) -> float:
    return float(torch.as_tensor(value).detach())


def picture(seed: int, height: int, width: int) -> Tensor:
    """Colours of which many are near each other: [1, 3, H, W] in 0..255."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 3, (1, 1, height // STRIDE, width // STRIDE), generator=rng).float()
    noise = torch.rand(1, 3, *coarse.shape[2:], generator=rng) * 4
    return (coarse * 60 + noise).repeat_interleave(STRIDE, 2).repeat_interleave(STRIDE, 3)


def pairwise_by_loops(
    logits: Tensor, coarse: Tensor, colours: Tensor, valid: tuple[int, int], similar: float = 0.3
) -> tuple[float, float]:
    """Sum of -log P and of pairs of one mask, cell by cell and neighbour by neighbour."""
    lab = lab_of(torch.nn.functional.avg_pool2d(colours, STRIDE).floor())[0]
    height, width = logits.shape
    rows, columns = coarse.amax(1).nonzero()[:, 0].tolist(), coarse.amax(0).nonzero()[:, 0].tolist()
    loss, pairs = 0.0, 0.0
    for y in range(height):
        for x in range(width):
            if not (rows and rows[0] <= y <= rows[-1] and columns[0] <= x <= columns[-1]):
                continue
            for dy in (-2, 0, 2):
                for dx in (-2, 0, 2):
                    v, u = y + dy, x + dx
                    if (dy, dx) == (0, 0) or not (0 <= v < height and 0 <= u < width):
                        continue
                    if v * STRIDE + 2 >= valid[0] or u * STRIDE + 2 >= valid[1]:
                        continue
                    distance = number((lab[:, y, x] - lab[:, v, u]).square().sum().sqrt())
                    if math.exp(-0.5 * distance) < similar:
                        continue
                    p, q = (1 / (1 + math.exp(-float(one))) for one in (logits[y, x], logits[v, u]))
                    loss -= math.log(p * q + (1 - p) * (1 - q))
                    pairs += 1
    return loss, pairs


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), bottom=st.integers(0, 12), right=st.integers(0, 9))
def test_pairwise_is_that_of_loops(seed: int, bottom: int, right: int) -> None:
    colours = picture(seed, 36, 28)
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 9, 7, generator=rng) * 3
    coarse = (torch.rand(2, 9, 7, generator=rng) > 0.9).float()
    affinity = find_affinity(colours, [(36 - bottom, 28 - right)])
    losses, pairs = pairwise_sums(logits, coarse, affinity, 0)
    for one in range(2):
        loss, count = pairwise_by_loops(logits[one], coarse[one], colours, (36 - bottom, 28 - right))
        assert number(pairs[one]) == count
        assert number(losses[one]) == pytest.approx(loss, rel=1e-4, abs=1e-4)


def test_pairwise_golden_values() -> None:
    """One colour, all logits 0: every pair costs log 2, and a cell has as many as it has neighbours."""
    affinity = find_affinity(torch.full((1, 3, 12, 12), 90.0), [(12, 12)])
    losses, pairs = pairwise_sums(torch.zeros(1, 3, 3), torch.ones(1, 3, 3), affinity, 0)
    assert number(pairs) == 16  # three neighbours of each corner, one of each side, at two cells' distance
    assert number(losses) == pytest.approx(16 * math.log(2), rel=1e-6)
    sure = torch.full((1, 3, 3), 40.0)
    assert number(pairwise_sums(sure, torch.ones(1, 3, 3), affinity, 0)[0]) == pytest.approx(0, abs=1e-6)
    apart = sure.clone()
    apart[0, 0, 0] = -40
    assert number(pairwise_sums(apart, torch.ones(1, 3, 3), affinity, 0)[0]) == pytest.approx(
        6 * (40 - math.log(2)), rel=1e-5
    )


def test_pairwise_stays_finite_where_products_of_probabilities_do_not() -> None:
    affinity = find_affinity(torch.zeros(1, 3, 12, 12), [(12, 12)])
    logits = torch.full((1, 3, 3), 300.0)
    logits[0, 0, 0] = -300
    logits.requires_grad_()
    loss = pairwise_sums(logits, torch.ones(1, 3, 3), affinity, 0)[0].sum()
    loss.backward()
    assert number(loss.detach()) == pytest.approx(6 * (300 - math.log(2)))
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())
    assert number(logits.grad[0, 0, 2]) != 0  # both cells of a pair are moved
    assert number(logits.grad[0, 0, 0]) != 0


def test_a_mask_that_is_empty_has_no_pairs() -> None:
    affinity = find_affinity(torch.zeros(1, 3, 12, 12), [(12, 12)])
    logits = torch.zeros(1, 3, 3, requires_grad=True)
    losses, pairs = pairwise_sums(logits, torch.zeros(1, 3, 3), affinity, 0)
    losses.sum().backward()
    assert number(pairs) == number(losses) == 0
    assert logits.grad is not None


def test_the_threshold_of_similarity_is_a_distance_of_2_408() -> None:
    """L alone differs between these greys, by a little less and a little more."""
    greys = lab_of(torch.arange(256.0).view(1, 1, 1, 256).expand(1, 3, 1, 256))[0, 0, 0]
    assert 2 * math.log(1 / 0.3) == pytest.approx(2.408, abs=1e-3)
    for low in (40, 120, 200):
        for high in range(low, low + 12):
            image = torch.full((1, 3, 4, 12), number(low))
            image[..., 8:] = high
            pairs = pairwise_sums(torch.zeros(1, 1, 3), torch.ones(1, 1, 3), find_affinity(image, [(4, 12)]), 0)[1]
            assert (number(pairs) == 2) == (abs(number(greys[high] - greys[low])) <= 2.408)


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((255, 255, 255), (100.0, 0.0, 0.0)),
        ((0, 0, 0), (0.0, 0.0, 0.0)),
        ((255, 0, 0), (53.2408, 80.0925, 67.2032)),
        ((0, 255, 0), (87.7351, -86.1827, 83.1797)),
        ((0, 0, 255), (32.2957, 79.1875, -107.8602)),
        ((128, 128, 128), (53.585, 0.0, 0.0)),
    ],
)
def test_lab_of_known_colours(rgb: tuple[int, int, int], lab: tuple[float, float, float]) -> None:
    found = lab_of(torch.tensor(rgb, dtype=torch.float32).view(1, 3, 1, 1)).flatten()
    assert found.tolist() == pytest.approx(lab, abs=0.02)


def test_lab_is_that_of_opencv() -> None:
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (16, 16, 3)).astype(np.float32)
    wanted = cv2.cvtColor(rgb / 255, cv2.COLOR_RGB2LAB)
    found = lab_of(torch.from_numpy(rgb).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    assert np.abs(found - wanted).max() < 0.6  # its fp32 table of cube roots
    swapped = lab_of(torch.from_numpy(rgb[..., ::-1].copy()).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    assert np.abs(swapped - wanted).max() > 10


def dice(p: list[float], t: list[float]) -> float:
    product = sum(a * b for a, b in zip(p, t, strict=True))
    return 1 - 2 * product / (sum(a * a for a in p) + sum(b * b for b in t) + 1e-5)


@pytest.mark.parametrize("how", ["max", "mean"])
def test_projections_are_those_of_loops(how: str) -> None:
    rng = torch.Generator().manual_seed(0)
    soft, coarse = torch.rand(3, 5, 4, generator=rng), (torch.rand(3, 5, 4, generator=rng) > 0.6).float()
    found = projection_loss(soft, coarse, how)  # type: ignore[arg-type]
    for one in range(3):
        wanted = 0.0
        for axis in (0, 1):
            lines = []
            for mask in (soft[one], coarse[one]):
                rows = mask.tolist() if axis else mask.T.tolist()
                lines.append([max(row) if how == "max" else sum(row) / len(row) for row in rows])
            wanted += dice(*lines)
        assert number(found[one]) == pytest.approx(wanted, abs=1e-5)


def test_a_ring_fools_the_maximum_but_not_the_mean() -> None:
    """Why the mean projection is there: an outline has the maxima of the whole."""
    whole = torch.ones(1, 9, 9)
    ring = whole.clone()
    ring[:, 1:-1, 1:-1] = 0
    assert number(projection_loss(ring, whole, "max")) == pytest.approx(0, abs=1e-5)
    assert number(projection_loss(ring, whole, "mean")) > 0.3


def test_gradients_by_finite_differences() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 6, 5, dtype=torch.float64, requires_grad=True)
    coarse = torch.zeros(2, 6, 5, dtype=torch.float64)
    coarse[0, 1:5, 1:4] = 1
    coarse[1, 0:3, 2:5] = 1
    affinity = find_affinity(picture(3, 24, 20), [(24, 20)])
    assert gradcheck(lambda x: pairwise_sums(x, coarse, affinity, 0)[0].sum(), (logits,))
    assert gradcheck(lambda x: projection_loss(x.sigmoid(), coarse, "max").sum(), (logits,))
    assert gradcheck(lambda x: projection_loss(x.sigmoid(), coarse, "mean").sum(), (logits,))
    vectors = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: cosine_loss(x, torch.ones(3, 7, dtype=torch.float64)).sum(), (vectors,))


def test_vectors_are_shortened_by_taking_two_channels_of_sixteen() -> None:
    vectors = torch.randn(3, 2048)
    wanted = torch.stack([vectors[:, 16 * i + 7 : 16 * i + 9].mean(1) for i in range(128)], 1)
    assert torch.allclose(shorten(vectors, 128), wanted, atol=1e-6)
    assert shorten(torch.zeros(0, 2048), 128).shape == (0, 128)


def test_the_tight_box_of_a_mask_in_pieces_goes_around_all_of_them() -> None:
    mask = torch.zeros(2, 6, 7)
    mask[0, 1, 1] = mask[0, 4, 5] = 1
    box = tight_box(mask)
    assert box[0, 1:5, 1:6].all()
    assert int(box.sum()) == 20
