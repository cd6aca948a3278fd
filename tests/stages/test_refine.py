import cv2
import numpy as np
import pytest

from saliency_prompt.stages.refine import guided_filter, refine_maps


def slow_guided_filter(guide: np.ndarray, values: np.ndarray, radius: int, eps: float) -> np.ndarray:
    """Eq. 5, 6 and 8 of Guided Image Filtering, window by window."""
    height, width = guide.shape
    slope, offset = np.zeros((height, width)), np.zeros((height, width))

    def window(y: int, x: int) -> tuple[slice, slice]:
        return slice(max(0, y - radius), y + radius + 1), slice(max(0, x - radius), x + radius + 1)

    for y in range(height):
        for x in range(width):
            i, p = guide[window(y, x)].astype(float), values[window(y, x)].astype(float)
            slope[y, x] = ((i * p).mean() - i.mean() * p.mean()) / (i.var() + eps)
            offset[y, x] = p.mean() - slope[y, x] * i.mean()
    found = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            found[y, x] = slope[window(y, x)].mean() * guide[y, x] + offset[window(y, x)].mean()
    return found


@pytest.mark.parametrize("radius", [1, 3, 20])
def test_as_window_by_window(radius: int) -> None:
    rng = np.random.default_rng(0)
    guide, values = rng.random((9, 13), np.float32), rng.random((9, 13), np.float32)
    expected = slow_guided_filter(guide, values, radius, 1e-2)
    np.testing.assert_allclose(guided_filter(guide, values, radius, 1e-2), expected, atol=1e-5)


def test_a_blurred_edge_moves_to_that_of_the_photograph() -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, 30:] = 200
    soft = np.clip((np.arange(8)[None] - 2.5) / 2, 0, 1).astype(np.float32).repeat(8, 0)[None]  # crosses at 28
    sharp = refine_maps(soft, pixels, 8, 1e-4)[0]
    inside = sharp[32] >= 0.5
    assert inside[30:].all()
    assert not inside[:30].any()
    assert 0 <= sharp.min() <= sharp.max() <= 1


def test_radius_zero_and_no_maps_change_nothing() -> None:
    soft = np.ones((2, 3, 4), np.float32)
    assert refine_maps(soft, np.zeros((6, 8, 3), np.uint8), 0, 1e-3) is soft
    assert refine_maps(soft[:0], np.zeros((6, 8, 3), np.uint8), 3, 1e-3).shape == (0, 3, 4)


def test_a_small_map_is_filtered_as_in_the_whole_photograph() -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (90, 120, 3)).astype(np.uint8)
    guide = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32) / np.float32(255)
    soft = np.zeros((2, 90, 120), np.float32)
    soft[0, 40:50, 30:45] = 1
    refined = refine_maps(soft, pixels, 5, 1e-2)
    np.testing.assert_allclose(refined[0], np.clip(guided_filter(guide, soft[0], 5, 1e-2), 0, 1), atol=1e-5)
    assert not refined[1].any()
