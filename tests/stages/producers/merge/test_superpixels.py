import cv2
import numpy as np
import pytest

from saliency_prompt.stages.producers.merge.superpixels import (
    find_leaves,
    gradient_strength,
    lab_colors,
    neighbours,
    pooled_features,
    superpixels,
)


def photograph(height: int = 60, width: int = 80) -> np.ndarray:
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 255, (height // 4 + 1, width // 4 + 1, 3)).astype(np.uint8)
    image = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    image[15:40, 20:50] = (250, 20, 20)
    return image


@pytest.mark.parametrize(("height", "width", "side"), [(60, 80, 10), (5, 7, 14), (33, 61, 4)])
def test_superpixels_are_connected_and_cover_everything(height: int, width: int, side: int) -> None:
    image = photograph(height, width)
    labels = superpixels(image, gradient_strength(lab_colors(image)), side)
    assert labels.shape == (height, width)
    assert set(np.unique(labels)) == set(range(labels.max() + 1))
    for label in range(labels.max() + 1):
        assert cv2.connectedComponents((labels == label).astype(np.uint8), connectivity=8)[0] == 2


def test_superpixels_keep_to_strong_edges() -> None:
    image = photograph()
    labels = find_leaves(image, 8).labels
    inside = np.zeros(labels.shape, bool)
    inside[15:40, 20:50] = True
    held = np.bincount(labels[inside], minlength=labels.max() + 1) / np.bincount(labels.ravel())
    best = (held > 0.5)[labels]
    assert (best & inside).sum() / (best | inside).sum() > 0.9


def test_neighbours_as_pixel_by_pixel() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, (6, 7)).astype(np.int32)
    labels.flat[:5] = range(5)
    gradient = rng.random((6, 7), np.float32)
    expected: dict[tuple[int, int], list[float]] = {}
    for y in range(6):
        for x in range(7):
            for v, u in ((y + 1, x), (y, x + 1)):
                if v < 6 and u < 7 and labels[y, x] != labels[v, u]:
                    pair = tuple(sorted((int(labels[y, x]), int(labels[v, u]))))
                    expected.setdefault(pair, []).append(max(gradient[y, x], gradient[v, u]))
    pairs, length, edge = neighbours(labels, gradient)
    assert [tuple(pair) for pair in pairs.tolist()] == sorted(expected)
    assert length.tolist() == [len(expected[tuple(p)]) for p in pairs.tolist()]
    np.testing.assert_allclose(edge, [sum(expected[tuple(p)]) for p in pairs.tolist()], rtol=1e-5)


def test_features_that_change_linearly_have_their_mean_in_each_superpixel() -> None:
    image = photograph(90, 120)
    leaves = find_leaves(image, 12)
    rows, columns = (np.arange(n) + 0.5 for n in (9, 12))  # cells of 10 x 10 pixels
    ramps = np.stack([np.add.outer(rows, 0 * columns), np.add.outer(2 * rows, -columns), np.ones((9, 12))], axis=2)
    y, x = (np.mgrid[:90, :120] + 0.5) / 10
    wide = [y, 2 * y - x, np.ones_like(x)]
    inner = np.bincount(leaves.labels[10:-10, 10:-10].ravel(), minlength=len(leaves.sizes)) == leaves.sizes
    expected = np.stack([np.bincount(leaves.labels.ravel(), one.ravel()) for one in wide], axis=1)
    pooled = pooled_features(leaves, ramps.astype(np.float32))
    assert inner.sum() > 10
    np.testing.assert_allclose(pooled[inner], expected[inner], rtol=1e-4)
    np.testing.assert_allclose(pooled[:, 2], leaves.sizes, rtol=1e-5)
