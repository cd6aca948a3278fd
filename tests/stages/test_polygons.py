import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco_mask

from saliency_prompt.stages.polygons import outline, single_ring, without_holes

masks = arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 1))


def drawn(rings, height, width):
    """What pycocotools makes of polygons."""
    rles = coco_mask.frPyObjects([ring.ravel().tolist() for ring in rings], height, width)
    return coco_mask.decode(coco_mask.merge(rles))


def inside(ring, height, width):
    """The pixels whose centres lie inside, by counting crossings of a ray to the left."""
    found = np.zeros((height, width), np.uint8)
    ends = np.roll(ring, -1, axis=0)
    for y in range(height):
        for x in range(width):
            crossings = 0
            for (x0, y0), (x1, y1) in zip(ring, ends, strict=True):
                if (y0 > y + 0.5) != (y1 > y + 0.5):
                    crossings += x0 + (y + 0.5 - y0) * (x1 - x0) / (y1 - y0) < x + 0.5
            found[y, x] = crossings % 2
    return found


@given(masks)
@settings(max_examples=80, deadline=None)
def test_the_pixels_inside_are_those_of_the_mask(mask):
    if not mask.any():
        assert outline(mask) == []
        return
    parts = outline(mask)
    together = sum(inside(without_holes(part), *mask.shape) for part in parts)
    np.testing.assert_array_equal(together, mask)
    np.testing.assert_array_equal(inside(single_ring(parts), *mask.shape), mask)
    assert len(parts) == cv2.connectedComponents(mask, connectivity=4)[0] - 1


def test_a_pixel_is_a_square():
    mask = np.zeros((3, 3), np.uint8)
    mask[1, 1] = 1
    (part,) = outline(mask)
    assert {tuple(point) for point in part.outer.tolist()} == {(1, 1), (2, 1), (2, 2), (1, 2)}
    assert part.holes == []


def disk(height, width, radius):
    yy, xx = np.mgrid[:height, :width]
    distance = np.hypot(yy - height / 2, xx - width / 2)
    return ((distance < radius) & (distance > radius / 3)).astype(np.uint8)


def test_pycocotools_draws_the_mask_again():
    mask = disk(120, 160, 50)
    mask[5:15, 5:20] = 1
    parts = outline(mask)
    assert [len(part.holes) for part in parts] == [1, 0]
    np.testing.assert_array_equal(drawn([without_holes(part) for part in parts], 120, 160), mask)
    np.testing.assert_array_equal(drawn([single_ring(parts)], 120, 160), mask)


@pytest.mark.parametrize("tolerance", [0.5, 1.0, 2.0])
def test_simpler_outlines_stay_near_and_have_fewer_corners(tolerance):
    mask = disk(200, 200, 80)
    exact, simple = outline(mask)[0], outline(mask, tolerance)[0]
    assert len(simple.outer) < len(exact.outer)
    again = drawn([without_holes(simple)], 200, 200)
    ring = cv2.dilate(mask, np.ones((3, 3), np.uint8)) - cv2.erode(mask, np.ones((3, 3), np.uint8))
    wide = cv2.dilate(ring, np.ones((5, 5), np.uint8))
    assert (wide[again != mask] > 0).all()
    assert (again & mask).sum() / (again | mask).sum() > 0.95


def test_what_would_collapse_is_kept():
    mask = np.zeros((5, 5), np.uint8)
    mask[2, 2] = 1
    assert len(outline(mask, 10.0)[0].outer) == 4
