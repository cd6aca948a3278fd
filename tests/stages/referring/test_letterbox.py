import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from saliency_prompt.models.unilseg.model import MEAN
from saliency_prompt.stages.referring.letterbox import fit_matrix, letterbox, letterbox_mask, unletterbox

sides = st.integers(1, 300)


@given(sides, sides, st.integers(32, 200))
def test_the_photograph_fills_the_square_and_is_centred(height: int, width: int, side: int) -> None:
    matrix = fit_matrix(height, width, side)
    corners = matrix @ np.array([[-0.5, -0.5, 1], [width - 0.5, height - 0.5, 1]]).T
    low, high = corners[:, 0] + 0.5, corners[:, 1] + 0.5
    np.testing.assert_allclose(low + high, side, atol=1e-6)
    assert np.isclose((high - low).max(), side)
    assert (low > -1e-6).all()


def test_there_and_back_is_the_same_map() -> None:
    """Smooth maps return exactly where they were: a shift by a pixel would show."""
    for height, width in ((40, 60), (61, 37), (64, 64)):
        rows, columns = np.mgrid[:height, :width].astype(np.float32)
        ramp = (0.2 + 0.5 * rows / height + 0.3 * columns / width).astype(np.float32)
        square = letterbox(np.repeat((ramp * 255).round().astype(np.uint8)[..., None], 3, 2), 96)[..., 0]
        back = unletterbox(square.astype(np.float32) / 255, height, width)
        inner = (slice(4, -4), slice(4, -4))
        np.testing.assert_allclose(back[inner], ramp[inner], atol=0.012)


def test_the_border_is_the_mean_and_masks_have_none() -> None:
    square = letterbox(np.zeros((10, 40, 3), np.uint8), 64)
    np.testing.assert_array_equal(square[0, 0], np.round(MEAN).astype(np.uint8))
    mask = letterbox_mask(np.ones((10, 40), np.uint8), 64)
    assert mask.sum() == 16 * 64
    assert set(np.unique(mask)) == {0, 1}
