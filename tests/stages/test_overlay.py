import numpy as np
import pytest
from pycocotools import mask as coco_mask

from saliency_prompt.stages.overlay import draw_overlay, palette_color

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def draw(masks, image, seeds=None):
    encoded = [coco_mask.encode(np.asfortranarray(m.astype(np.uint8))) for m in masks]
    boxes = np.array([coco_mask.toBbox(r) for r in encoded], np.float32).reshape(-1, 4)
    scores = np.linspace(1, 0.5, len(masks), dtype=np.float32)
    return draw_overlay(image, [r["counts"] for r in encoded], boxes, scores, seeds)


def rectangle(height, width, y, x, h, w):
    mask = np.zeros((height, width), bool)
    mask[y : y + h, x : x + w] = True
    return mask


@pytest.fixture
def gray():
    return np.full((300, 400, 3), 120, np.uint8)


def test_masks_are_tinted_where_they_are_and_nothing_else_is(gray):
    before = gray.copy()
    picture = draw([rectangle(300, 400, 100, 50, 100, 200)], gray)
    np.testing.assert_array_equal(gray, before)
    assert picture.shape == gray.shape
    assert picture.dtype == np.uint8
    tint = 0.55 * 120 + 0.45 * np.array(palette_color(0))
    np.testing.assert_allclose(picture[150:190, 60:240].reshape(-1, 3), np.tile(tint, (40 * 180, 1)), atol=1)
    assert (picture[210:, :] == 120).all()
    assert (picture[:, 260:] == 120).all()


def test_best_mask_hides_the_others(gray):
    best, second = rectangle(300, 400, 100, 100, 100, 100), rectangle(300, 400, 50, 50, 200, 300)
    alone, both = draw([best], gray), draw([best, second], gray)
    np.testing.assert_array_equal(alone[110:190, 110:190], both[110:190, 110:190])


def test_seed_is_marked(gray):
    mask = rectangle(300, 400, 100, 50, 100, 200)
    without, with_seed = draw([mask], gray), draw([mask], gray, np.array([[150.0, 160.0]], np.float32))
    changed = np.argwhere((without != with_seed).any(2))
    np.testing.assert_allclose(changed.mean(0), [160, 150], atol=0.5)


@pytest.mark.parametrize("size", [(1, 1), (8, 9), (40, 900), (3000, 30)])
def test_odd_sizes_and_masks_at_the_border(size):
    mask = np.ones(size, bool)
    picture = draw([mask, rectangle(*size, 0, 0, 1, 1)], np.zeros((*size, 3), np.uint8), np.zeros((2, 2), np.float32))
    assert picture.shape == (*size, 3)
    assert picture.any()


def test_no_masks_leave_the_photograph(gray):
    np.testing.assert_array_equal(draw([], gray), gray)


def test_colours_of_the_first_twenty_masks_differ():
    colors = np.array([palette_color(i) for i in range(20)], float)
    distances = np.linalg.norm(colors[:, None] - colors[None], axis=2)
    assert distances[~np.eye(20, dtype=bool)].min() > 30
