"""LVIS's rules: what is not known is no mistake; and its 300 detections an image."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.stages.evaluate import evaluate_coco

HEIGHT, WIDTH = 40, 400
Boxes = list[tuple[int, int, int, int]]  # XYWH


def rle(x: int, y: int, width: int, height: int) -> dict[str, Any]:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[y : y + height, x : x + width] = 1
    encoded = coco_mask.encode(mask)
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def annotation(number: int, image: int, category: int, box: tuple[int, int, int, int]) -> dict[str, Any]:
    x, y, width, height = box
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": rle(*box),
        "area": width * height,
        "bbox": [x, y, width, height],
        "iscrowd": 0,
    }


def found(image: int, category: int, box: tuple[int, int, int, int], score: float) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "segmentation": rle(*box), "score": score}


LEFT, RIGHT = (2, 2, 20, 20), (200, 2, 20, 20)
CATEGORIES = [
    {"id": 1, "name": "cup", "frequency": "f"},
    {"id": 2, "name": "jar", "frequency": "c"},
    {"id": 5, "name": "urn", "frequency": "r"},
]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    def write(content: dict[str, Any]) -> Path:
        path = tmp_path / "gt.json"
        path.write_text(json.dumps(content))
        return path

    return write


def lvis() -> dict[str, Any]:
    """A cup in both images; in the first no urn, in the second perhaps more cups."""
    sides = {"height": HEIGHT, "width": WIDTH}
    return {
        "images": [
            {"id": 1, **sides, "neg_category_ids": [5], "not_exhaustive_category_ids": []},
            {"id": 2, **sides, "neg_category_ids": [], "not_exhaustive_category_ids": [1]},
        ],
        "annotations": [annotation(1, 1, 1, LEFT), annotation(2, 2, 1, LEFT), annotation(3, 2, 5, RIGHT)],
        "categories": CATEGORIES,
    }


PERFECT = [found(1, 1, LEFT, 0.5), found(2, 1, LEFT, 0.5), found(2, 5, RIGHT, 0.5)]


@pytest.mark.parametrize(
    ("more", "ap", "rare", "frequent"),
    [
        ([], 100, 100, 100),
        ([found(1, 2, LEFT, 0.9), found(2, 2, LEFT, 0.9)], 100, 100, 100),  # of jars nothing is known
        ([found(2, 1, RIGHT, 0.9)], 100, 100, 100),  # perhaps a cup that nobody annotated
        ([found(1, 1, RIGHT, 0.9)], 250 / 3, 100, 200 / 3),  # there is no such cup
        ([found(1, 5, LEFT, 0.9)], 75, 50, 100),  # known to have no urn
    ],
)
def test_what_is_not_known_is_no_mistake(
    write: Callable[[dict[str, Any]], Path], more: list[dict[str, Any]], ap: float, rare: float, frequent: float
) -> None:
    report = evaluate_coco(write(lvis()), [*PERFECT, *more], ("segm",), class_agnostic=False, most=300)["segm"]
    assert report["AP"] == pytest.approx(ap, abs=0.5)
    assert report["APr"] == pytest.approx(rare, abs=0.5)
    assert report["APf"] == pytest.approx(frequent, abs=0.5)
    assert report["APc"] is None


def test_other_files_are_judged_as_before(write: Callable[[dict[str, Any]], Path]) -> None:
    content = lvis()
    del content["images"][0]["neg_category_ids"]
    with pytest.raises(UserError, match="neg_category_ids"):
        evaluate_coco(write(content), PERFECT, ("segm",), class_agnostic=False)
    for image in content["images"]:
        image.pop("neg_category_ids", None)
    report = evaluate_coco(write(content), [*PERFECT, found(2, 1, RIGHT, 0.9)], ("segm",), class_agnostic=False)["segm"]
    assert report["AP"] < 90
    assert "APr" not in report


def test_three_hundred_objects_ask_for_three_hundred_detections(write: Callable[[dict[str, Any]], Path]) -> None:
    boxes = [(4 * (i % 90), 8 * (i // 90), 3, 6) for i in range(300)]
    truth = {
        "images": [{"id": 1, "height": HEIGHT, "width": WIDTH}],
        "annotations": [annotation(i, 1, 1, box) for i, box in enumerate(boxes, start=1)],
        "categories": CATEGORIES[:1],
    }
    path, detections = write(truth), [found(1, 1, box, 1 - i / 1000) for i, box in enumerate(boxes)]
    usual = evaluate_coco(path, detections, ("segm",))["segm"]
    assert usual["AP"] == pytest.approx(100 * 34 / 101)  # a recall of a third, in COCO's 101 steps
    assert usual["AR100"] == pytest.approx(100 / 3)
    many = evaluate_coco(path, detections, ("segm",), most=300)["segm"]
    assert many["AP"] == many["AP50"] == many["AR300"] == pytest.approx(100)
    assert "AR100" not in many
    with pytest.raises(UserError, match="10"):
        evaluate_coco(path, detections, most=10)
