import cv2
import numpy as np
import pytest
import scipy.linalg
import torch

from saliency_prompt.stages.producers.ncut.cut import (
    component,
    contrast,
    cosine,
    foreground,
    hard_affinity,
    mask_cuts,
    one_cut,
    second_eigenvector,
    tuned_affinity,
)
from saliency_prompt.stages.producers.ncut.producer import connected_parts


def things(height: int = 12, width: int = 16) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features [1, 8, h, w] of a background and two unlike things, and where these are."""
    generator = torch.Generator().manual_seed(0)
    one, two = torch.zeros(height, width, dtype=torch.bool), torch.zeros(height, width, dtype=torch.bool)
    one[2:6, 2:7], two[7:10, 9:14] = True, True
    features = torch.zeros(8, height, width)
    features[0] = (~(one | two)).float()
    features[1], features[2] = one.float(), two.float()
    return (features + 0.05 * torch.randn(8, height, width, generator=generator))[None], one, two


def by_lapack(weights: torch.Tensor, free: torch.Tensor) -> np.ndarray:
    index = np.flatnonzero(free.numpy())
    inner = weights.double().numpy()[np.ix_(index, index)]
    degree = np.diag(inner.sum(1))
    vectors = scipy.linalg.eigh(degree - inner, degree)[1]
    x = np.zeros(len(free))
    x[index] = vectors[:, 1] / np.linalg.norm(vectors[:, 1])
    return x


@pytest.mark.parametrize("kind", ["hard", "tuned"])
def test_the_second_eigenvector_is_that_of_lapack(kind: str) -> None:
    features, one, _ = things()
    similar = cosine(features)
    weights = hard_affinity(similar, 0.15) if kind == "hard" else tuned_affinity(similar, 10)
    everything = torch.ones(1, similar.shape[1], dtype=torch.bool)
    for free in (everything, everything & ~one.flatten()):
        found = second_eigenvector(weights, free)[0].double().numpy()
        expected = by_lapack(weights[0], free[0])
        assert abs(found @ expected) > 0.999
        assert not found[~free[0].numpy()].any()


def test_images_of_a_batch_do_not_touch_each_other() -> None:
    first = things()[0]
    both = torch.cat([first, first.flip(3)])
    together, alone = mask_cuts(both, 0.15, 2), mask_cuts(both[1:], 0.15, 2)
    torch.testing.assert_close(together.maps[1:] >= 0.5, alone.maps >= 0.5)
    torch.testing.assert_close(together.scores[1:], alone.scores)


def test_a_round_for_each_thing() -> None:
    features, one, two = things()
    cuts = mask_cuts(features, 0.15, 2)
    found = {tuple(m.flatten().tolist()) for m in cuts.maps[0] >= 0.5}
    assert found == {tuple(one.flatten().tolist()), tuple(two.flatten().tolist())}
    assert (cuts.scores > 0).all()


def test_one_cut_gives_things_as_connected_parts() -> None:
    features, one, two = things()
    features[:, 2] = 0  # the second thing is now like the first
    features[:, 1] += two.float()
    cuts = one_cut(features, 10, 0.5)
    maps, scores = connected_parts(cuts.maps[0].numpy(), cuts.scores[0].numpy(), 2, 20)
    assert len(maps) == 2
    for thing in (one.numpy(), two.numpy()):
        iou = max((thing & (m >= 0.5)).sum() / (thing | (m >= 0.5)).sum() for m in maps)
        assert iou > 0.5
    assert scores[0] >= scores[1] > 0


def test_foreground_holds_no_three_corners() -> None:
    x = torch.ones(1, 20)
    x[0, 7] = -0.1
    x[0, 0] = 2.0
    soft = foreground(x, torch.ones(1, 20, dtype=torch.bool), (4, 5))
    inside = soft[0] >= 0.5
    assert inside[[0, 4, 15, 19]].sum() < 3


@pytest.mark.parametrize("seed", range(3))
def test_a_component_is_that_of_opencv(seed: int) -> None:
    inside = torch.rand(1, 9, 13, generator=torch.Generator().manual_seed(seed)) < 0.6
    inside[0, 4, 4] = True
    labels = cv2.connectedComponents(inside[0].numpy().astype(np.uint8), connectivity=4)[1]
    found = component(inside, torch.tensor([4 * 13 + 4]))
    np.testing.assert_array_equal(found[0].numpy(), labels == labels[4, 4])


def test_the_largest_fp16_features_do_not_overflow() -> None:
    features, one, _ = things()
    large = (features * 60000).clamp(-65504, 65504).half()
    assert torch.isfinite(cosine(large)).all()
    cuts = mask_cuts(large, 0.15, 2)
    assert any(torch.equal(m >= 0.5, one) for m in cuts.maps[0])


def test_flat_and_broken_features_give_no_masks() -> None:
    flat = torch.zeros(1, 4, 5, 6)
    assert contrast(cosine(flat), torch.ones(1, 30, dtype=torch.bool)).item() == 0
    broken = torch.full((1, 4, 5, 6), float("nan"))
    both = torch.cat([flat, broken])
    for cuts in (mask_cuts(both, 0.15, 3), one_cut(both, 5, 0.5)):
        assert cuts.finite.tolist() == [True, False]
        assert torch.isfinite(cuts.maps).all()
        assert torch.isfinite(cuts.scores).all()


def test_parts_below_the_smallest_size_are_left_out() -> None:
    maps = np.zeros((1, 6, 6), np.float32)
    maps[0, 0, 0] = maps[0, 3:6, 3:6] = 0.9
    parts, scores = connected_parts(maps, np.array([0.5], np.float32), 2, 20)
    assert len(parts) == 1
    assert scores[0] == pytest.approx(0.45)
    assert not connected_parts(maps, np.zeros(1, np.float32), 1, 20)[0].size
