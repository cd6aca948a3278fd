import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from saliency_prompt.schemas.labels.random import BoxesConfig
from saliency_prompt.stages.producers.random import random_boxes, random_masks


@given(st.integers(0, 2**63 - 1), st.integers(1, 300), st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_rectangles_lie_inside_and_are_those_of_the_image(image_id: int, height: int, width: int) -> None:
    config = BoxesConfig()
    boxes = random_boxes(image_id, height, width, config)
    assert boxes.shape == (10, 4)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] >= 1).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= (width, height)).all()
    np.testing.assert_array_equal(boxes, random_boxes(image_id, height, width, config))
    given = random_masks(image_id, height, width, config)
    rles = [{"size": [height, width], "counts": counts} for counts in given.counts]
    np.testing.assert_array_equal(coco_mask.toBbox(rles), boxes)
    np.testing.assert_array_equal(coco_mask.area(rles), boxes[:, 2] * boxes[:, 3])


def test_sides_and_places_are_spread() -> None:
    boxes = np.concatenate([random_boxes(i, 1000, 2000, BoxesConfig()) for i in range(300)]).astype(float)
    for place, side, size in ((0, 2, 2000), (1, 3, 1000)):
        share = boxes[:, side] / size
        assert 0.1 <= share.min() < 0.12
        assert 0.88 < share.max() <= 0.9
        assert abs(share.mean() - 0.5) < 0.02
        room = boxes[:, place] / (size - boxes[:, side] + 1)
        assert abs(room.mean() - 0.5) < 0.02
    other = random_boxes(1, 1000, 2000, BoxesConfig(seed=1))
    assert (other != random_boxes(1, 1000, 2000, BoxesConfig())).any()
