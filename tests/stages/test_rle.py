import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from saliency_prompt.stages.rle import compress_many

# pycocotools 2.0.11 decodes with numpy 1 habits
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def reference(mask_HW: np.ndarray) -> bytes:
    return coco_mask.encode(np.asfortranarray(mask_HW.astype(np.uint8)))["counts"]


def runs(mask_HW: np.ndarray) -> np.ndarray:
    flat = mask_HW.T.ravel() > 0
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    return np.diff(np.concatenate([[0, 0] if flat[0] else [0], changes, [flat.size]]))


def compress(lengths: np.ndarray) -> bytes:
    return compress_many(lengths, np.array([lengths.size]))[0]


def checkerboard(height, width):
    return (np.add.outer(np.arange(height), np.arange(width)) % 2).astype(np.uint8)


def disc(height, width):
    y, x = np.ogrid[:height, :width]
    return (x - 0.3 * width) ** 2 + (y - 0.6 * height) ** 2 < (0.2 * width) ** 2


@pytest.mark.parametrize(
    "mask_HW",
    [
        np.zeros((1, 1)),
        np.ones((1, 1)),
        np.zeros((5, 7)),
        np.ones((5, 7)),
        np.eye(1, 30),
        np.eye(9)[:, ::-1],
        checkerboard(6, 9),
        checkerboard(601, 800),
        disc(1500, 2500),
        np.ones((3000, 4000)),
    ],
    ids=lambda m: f"{m.shape}-{int(m.sum())}",
)
def test_bytes_equal_pycocotools(mask_HW):
    assert compress(runs(mask_HW)) == reference(mask_HW)


def test_asymmetric_mask_comes_back_untransposed():
    mask_HW = np.zeros((4, 7), np.uint8)
    mask_HW[0, 2:] = 1
    counts = compress(runs(mask_HW))
    np.testing.assert_array_equal(coco_mask.decode({"size": [4, 7], "counts": counts}), mask_HW)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([0.02, 0.3, 0.5, 0.98]), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=50)
def test_random_masks(height, width, density, seed):
    mask_HW = np.random.default_rng(seed).random((height, width)) < density
    assert compress(runs(mask_HW)) == reference(mask_HW)


def test_long_and_shrinking_runs_of_a_large_image():
    # differences of both signs in every number of digits
    lengths = np.array([0, 1, 2**24, 15, 16, 2**20, 17, 1, 2**9, 2**19 + 5, 512, 31, 3, 2**14])
    height = 2**10
    lengths = np.append(lengths, -lengths.sum() % height + height)
    width = int(lengths.sum()) // height
    uncompressed = {"size": [height, width], "counts": lengths.tolist()}
    assert compress(lengths) == coco_mask.frPyObjects(uncompressed, height, width)["counts"]


def test_masks_compressed_together_do_not_touch_each_other():
    lengths = [runs(m) for m in (disc(30, 50), np.ones((8, 3)) > 0, checkerboard(9, 9) > 0)]
    together = compress_many(np.concatenate(lengths), np.array([x.size for x in lengths]))
    assert together == [compress(x) for x in lengths]
