"""Errors of mattes: on hand-made ones, against the definition written pixel by pixel, and on a real matte."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.stages.matting import (
    composite,
    connection,
    encode_alpha,
    gradient_size,
    matte_errors,
    read_alpha,
)

REAL = Path(__file__).resolve().parents[3] / "shared/data/matting1"


def test_equal_mattes_have_no_error() -> None:
    alpha = np.random.default_rng(0).random((20, 30))
    errors = matte_errors(alpha, alpha)
    assert (errors.sad, errors.mse, errors.gradient, errors.connectivity) == (0, 0, 0, 0)


def test_sums_and_means_by_hand() -> None:
    truth, found = np.zeros((10, 10)), np.full((10, 10), 0.5)
    errors = matte_errors(found, truth)
    assert errors.sad == pytest.approx(0.05)
    assert errors.mse == pytest.approx(0.25)
    assert errors.gradient == pytest.approx(0, abs=1e-12)
    unknown = np.zeros((10, 10), bool)
    unknown[0] = True
    assert matte_errors(found, truth, unknown).sad == pytest.approx(0.005)
    assert matte_errors(found, truth, np.zeros((10, 10), bool)).mse == 0


def test_the_gradient_is_that_of_a_gaussian_derivative() -> None:
    alpha = np.random.default_rng(1).random((12, 14))
    size, reach = 5, range(-5, 6)
    weights = {(y, x): np.exp(-(x * x + y * y) / (2 * 1.4**2)) for y in reach for x in reach}
    norm = np.sqrt(sum((x * w) ** 2 for (_, x), w in weights.items()))
    padded = np.pad(alpha, size, mode="edge")
    for row, column in ((0, 0), (5, 7), (11, 3)):
        along_x, along_y = (
            sum((x, y)[axis] * w * padded[row + size + y, column + size + x] for (y, x), w in weights.items()) / norm
            for axis in (0, 1)
        )
        assert gradient_size(alpha)[row, column] == pytest.approx(np.hypot(along_x, along_y))


def test_what_is_cut_off_from_the_source_is_unconnected() -> None:
    truth = np.zeros((7, 12))
    truth[1:6, 1:6] = 1
    found = truth.copy()
    found[1:3, 8:10] = 0.8  # an island
    found[1, 1] = 0.9  # less than the tolerance
    of_found, of_truth = connection(found, truth)
    assert of_found[1, 8] == pytest.approx(0.2)
    assert (of_truth == 1).all()
    errors = matte_errors(found, truth)
    assert errors.connectivity == pytest.approx(4 * 0.8 / 1000)


def test_odd_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="size"):
        matte_errors(np.zeros((3, 4)), np.zeros((4, 4)))
    path = tmp_path / "a.png"
    path.write_bytes(encode_alpha(np.array([[0, 0.5, 1.0]])))
    assert read_alpha(path, (1, 3))[0].tolist() == pytest.approx([0, 128 / 255, 1])
    with pytest.raises(UserError, match=r"a\.png is 3 x 1"):
        read_alpha(path, (1, 2))
    with pytest.raises(UserError, match="PNG"):
        read_alpha(tmp_path / "none.png", (1, 2))
    cv2.imwrite(str(path), np.array([[65535, 0]], np.uint16))
    assert read_alpha(path, (1, 2)).tolist() == [[1, 0]]


def test_composites_show_the_object_over_a_colour() -> None:
    image = np.full((1, 3, 3), 200, np.uint8)
    made = composite(image, np.array([[0, 0.5, 1.0]]), (0, 100, 0))
    assert made.tolist() == [[[0, 100, 0], [100, 150, 100], [200, 200, 200]]]


def test_a_real_matte_is_worse_the_more_it_is_blurred() -> None:
    if not REAL.is_dir():
        pytest.skip("needs ../shared/data/matting1")
    shape = cv2.imread(str(REAL / "lemur.png")).shape[:2]
    truth = read_alpha(REAL / "lemur_alpha.png", shape)
    trimap = cv2.imread(str(REAL / "lemur_trimap.png"), cv2.IMREAD_GRAYSCALE)
    unknown = (trimap > 0) & (trimap < 255)
    assert 0.01 < unknown.mean() < 0.9
    worse = [matte_errors(cv2.blur(truth, (side, side)), truth) for side in (1, 3, 9, 27)]
    for name in ("sad", "mse", "gradient", "connectivity"):
        values = [getattr(one, name) for one in worse]
        assert values[0] == pytest.approx(0, abs=1e-6)
        assert values == sorted(values), name
    hard = (truth > 0.5).astype(np.float64)
    assert 0 < matte_errors(hard, truth, unknown).sad <= matte_errors(hard, truth).sad
