import numpy as np
import pytest
from pycocotools import mask as coco_mask

from saliency_prompt.stages.evaluate import Annotated
from saliency_prompt.stages.oracle_masks import with_oracle_masks


def rle(*box: int) -> dict[str, object]:
    top, left, bottom, right = box
    mask = np.zeros((20, 30), np.uint8)
    mask[top:bottom, left:right] = 1
    return dict(coco_mask.encode(np.asfortranarray(mask)))


def text(mask: dict[str, object]) -> dict[str, object]:
    return {"size": mask["size"], "counts": mask["counts"].decode("ascii")}  # type: ignore[attr-defined]


def test_masks_become_the_nearest_objects() -> None:
    objects = [rle(0, 0, 10, 10), rle(5, 5, 20, 30)]
    one = Annotated(20, 30, objects, ["a", "b"], 7, [1, 2], [True, True])
    truth = [one, Annotated(20, 30, [], [], 8, [], [])]
    detections = [
        {"image_id": 7, "score": 0.9, "category_id": 1, "segmentation": text(rle(0, 0, 8, 9))},
        {"image_id": 8, "score": 0.8, "category_id": 1, "segmentation": text(rle(0, 0, 8, 9))},
        {"image_id": 7, "score": 0.7, "category_id": 2, "segmentation": text(rle(0, 20, 3, 25))},
        {"image_id": 7, "score": 0.6, "category_id": 1, "segmentation": text(rle(4, 4, 20, 20))},
        {"image_id": 9, "score": 0.5, "category_id": 1, "segmentation": text(rle(4, 4, 20, 20))},
    ]
    found = with_oracle_masks(detections, truth)
    assert [one["score"] for one in found] == [0.9, 0.8, 0.7, 0.6, 0.5]
    assert found[0]["segmentation"] == text(objects[0])
    assert found[3]["segmentation"] == text(objects[1])
    assert found[3]["category_id"] == 1
    for place in (1, 2, 4):  # no object there
        assert found[place] == detections[place]


@pytest.mark.parametrize("detections", [[], [{"image_id": 1, "score": 1.0, "segmentation": text(rle(0, 0, 1, 1))}]])
def test_nothing_to_take_from(detections: list[dict[str, object]]) -> None:
    assert with_oracle_masks(detections, []) == detections
