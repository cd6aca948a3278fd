import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from saliency_prompt.stages.overlay import Style, draw_overlay, palette_color, place_labels

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


BARE = Style(labels=0)


def draw(masks, image, seeds=None, style=BARE):
    encoded = [coco_mask.encode(np.asfortranarray(m.astype(np.uint8))) for m in masks]
    boxes = np.array([coco_mask.toBbox(r) for r in encoded], np.float32).reshape(-1, 4)
    scores = np.linspace(1, 0.5, len(masks), dtype=np.float32)
    return draw_overlay(image, [r["counts"] for r in encoded], boxes, scores, seeds, style=style)


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
    tint = 0.75 * 120 + 0.25 * np.array(palette_color(0))
    np.testing.assert_allclose(picture[150:190, 60:240].reshape(-1, 3), np.tile(tint, (40 * 180, 1)), atol=1)
    assert (picture[210:, :] == 120).all()
    assert (picture[:, 260:] == 120).all()


@pytest.mark.parametrize("small_is_better", [True, False])
def test_the_smaller_mask_lies_on_top_whatever_its_rank(gray, small_is_better):
    small, large = rectangle(300, 400, 100, 100, 100, 100), rectangle(300, 400, 50, 50, 200, 300)
    picture = draw([small, large] if small_is_better else [large, small], gray)
    rank_small, rank_large = (0, 1) if small_is_better else (1, 0)
    tints = [0.75 * 120 + 0.25 * np.array(palette_color(rank)) for rank in (rank_small, rank_large)]
    np.testing.assert_allclose(picture[150, 150], tints[0], atol=1)  # of the small one alone
    np.testing.assert_allclose(picture[225, 300], tints[1], atol=1)


def test_of_masks_of_one_size_the_better_lies_on_top(gray):
    first, second = rectangle(300, 400, 100, 100, 100, 100), rectangle(300, 400, 100, 150, 100, 100)
    alone, both = draw([first], gray), draw([first, second], gray)
    np.testing.assert_array_equal(alone[110:190, 110:190], both[110:190, 110:190])
    assert (both[110:190, 210:240] != 120).any()


def test_seed_is_marked(gray):
    mask = rectangle(300, 400, 100, 50, 100, 200)
    without, with_seed = draw([mask], gray), draw([mask], gray, np.array([[150.0, 160.0]], np.float32))
    changed = np.argwhere((without != with_seed).any(2))
    np.testing.assert_allclose(changed.mean(0), [160, 150], atol=0.5)


@pytest.mark.parametrize("size", [(1, 1), (8, 9), (40, 900), (3000, 30)])
def test_odd_sizes_and_masks_at_the_border(size):
    mask = np.ones(size, bool)
    picture = draw(
        [mask, rectangle(*size, 0, 0, 1, 1)], np.zeros((*size, 3), np.uint8), np.zeros((2, 2), np.float32), Style()
    )
    assert picture.shape == (*size, 3)
    assert picture.any()


def test_boxes_and_labels_are_drawn_if_they_are_wanted(gray):
    mask = rectangle(300, 400, 100, 50, 100, 200)
    mask[100:150, 50:150] = False
    bare, boxed, written = (
        draw([mask], gray),
        draw([mask], gray, style=Style(boxes=True, labels=0)),
        draw([mask], gray, style=Style(labels=1)),
    )
    changed = np.argwhere((bare != boxed).any(2))
    np.testing.assert_allclose(changed.min(0), [100, 50], atol=1)  # lines are smoothed
    at = np.argwhere((bare != written).any(2))
    assert mask[tuple(at.mean(0).astype(int))]
    np.testing.assert_array_equal(written, draw([mask], gray, style=Style(labels=1)))
    assert (draw([mask], gray, style=Style(alpha=0, labels=0))[160:190, 100:240] == 120).all()


@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(-50, 150), st.integers(-50, 150)), max_size=4),
            st.tuples(st.integers(1, 60), st.integers(1, 30)),
        ),
        max_size=8,
    )
)
def test_labels_lie_inside_and_cover_neither_each_other_nor_what_is_taken(labels):
    taken = [(10, 10, 20, 20)]
    placed = place_labels([c for c, _ in labels], [s for _, s in labels], (80, 100), taken)
    boxes = [one for one in placed if one is not None]
    canvas = np.zeros((80, 100), int)
    for x0, y0, x1, y1 in [*taken, *boxes]:
        assert 0 <= x0 < x1 <= 100
        assert 0 <= y0 < y1 <= 80
        canvas[y0:y1, x0:x1] += 1
    assert canvas.max() == 1
    for (_, size), place in zip(labels, placed, strict=True):
        assert place is None or (place[2] - place[0], place[3] - place[1]) == size


def test_a_label_takes_its_next_place_if_the_first_is_taken():
    assert place_labels([[(0, 0)], [(5, 0), (0, 50)], [(0, 0)]], [(10, 10)] * 3, (80, 100)) == [
        (0, 0, 10, 10),
        (0, 50, 10, 60),
        None,
    ]


def test_no_masks_leave_the_photograph(gray):
    np.testing.assert_array_equal(draw([], gray), gray)


def test_colours_of_the_first_twenty_masks_differ():
    colors = np.array([palette_color(i) for i in range(20)], float)
    distances = np.linalg.norm(colors[:, None] - colors[None], axis=2)
    assert distances[~np.eye(20, dtype=bool)].min() > 30
