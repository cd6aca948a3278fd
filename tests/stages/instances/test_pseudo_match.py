"""Pseudo-masks matched to boxes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from saliency_prompt.stages.instances.pseudo_match import match_boxes, stand_in

BOXES = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(1, 20), st.integers(1, 20)), max_size=6
).map(lambda found: np.array(found, np.float64).reshape(-1, 4))


def iou(a: np.ndarray, b: np.ndarray) -> float:
    width = max(0.0, min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1]))
    return width * height / (a[2] * a[3] + b[2] * b[3] - width * height)


@given(BOXES, BOXES, st.sampled_from([0.1, 0.5, 0.9]))
def test_matching_is_greedy_by_iou(boxes: np.ndarray, pseudo: np.ndarray, least: float) -> None:
    wanted = [-1] * len(boxes)
    pairs = [(-iou(a, b), m, p) for m, a in enumerate(boxes) for p, b in enumerate(pseudo)]
    for negative, m, p in sorted(pairs):
        if -negative >= least and wanted[m] < 0 and p not in wanted:
            wanted[m] = p
    assert match_boxes(boxes, pseudo, least).tolist() == wanted


def rle(y: int, x: int, h: int, w: int, hole: bool = False) -> dict[str, object]:
    mask = np.zeros((40, 40), np.uint8, order="F")
    mask[y : y + h, x : x + w] = 1
    if hole:
        mask[y + 2, x + 2] = 0
    return coco_mask.encode(mask)


def test_only_objects_without_a_mask_get_one_cut_to_their_box() -> None:
    masks = [rle(2, 2, 10, 10), rle(20, 20, 10, 10), rle(0, 30, 5, 5)]
    pseudo = [rle(2, 2, 10, 10, hole=True), rle(19, 19, 12, 12, hole=True)]
    found, known, weights = stand_in(masks, [True, False, False], pseudo, [0.9, 0.7])
    assert found[0] == masks[0]
    assert found[2] == masks[2]
    assert known == [True, True, False]
    assert weights == [1.0, 0.7, 1.0]
    drawn = coco_mask.decode(found[1])
    assert drawn.sum() == 99  # the box less the hole
    assert drawn[21, 21] == 0
    assert coco_mask.toBbox(found[1]).tolist() == [20, 20, 10, 10]


def test_nothing_to_match() -> None:
    assert stand_in([], [], [rle(1, 1, 3, 3)], [0.5]) == ([], [], [])
    one = rle(1, 1, 3, 3)
    assert stand_in([one], [False], [], []) == ([one], [False], [1.0])
