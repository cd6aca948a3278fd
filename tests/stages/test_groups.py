"""AP by group: a group's number depends on its classes alone."""

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.partial import Split
from saliency_prompt.stages.evaluate import evaluate_coco
from saliency_prompt.stages.groups import evaluate_groups, format_groups

SIDE = 60
CATEGORIES = [2, 5, 9, 11]  # labels 0..3; the last has no object
SPLIT = Split(base=(0, 2), novel=(1, 3))


def rle(y: int, x: int, h: int, w: int) -> dict[str, object]:
    mask = np.zeros((SIDE, SIDE), np.uint8, order="F")
    mask[y : y + h, x : x + w] = 1
    encoded = coco_mask.encode(mask)
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


PLACES = {2: (2, 2, 20, 20), 5: (30, 5, 20, 18), 9: (5, 30, 24, 24)}


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": SIDE, "width": SIDE} for i in (1, 2)],
        "categories": [{"id": c, "name": f"c{c}"} for c in CATEGORIES],
        "annotations": [
            {
                "id": 10 * i + c,
                "image_id": i,
                "category_id": c,
                "iscrowd": 0,
                "area": place[2] * place[3],
                "bbox": [place[1], place[0], place[3], place[2]],
                "segmentation": rle(*place),
            }
            for i in (1, 2)
            for c, place in PLACES.items()
        ],
    }
    path = tmp_path / "gt.json"
    path.write_text(json.dumps(content))
    return path


def found(categories: list[int], images: tuple[int, ...] = (1, 2)) -> list[dict[str, object]]:
    return [
        {"image_id": i, "category_id": c, "score": 0.9, "segmentation": rle(*PLACES[c])}
        for i in images
        for c in categories
    ]


def test_a_group_is_the_mean_over_its_classes(truth: Path) -> None:
    results = evaluate_groups(truth, found([2, 5]) + found([9], images=(1,)), CATEGORIES, SPLIT)
    assert results["novel"]["segm"]["AP"] == pytest.approx(100)
    assert results["all"]["segm"]["AP"] == pytest.approx((100 + 2 * results["base"]["segm"]["AP"]) / 3)
    assert results["base"]["bbox"]["AP"] == pytest.approx(results["base"]["segm"]["AP"])
    alone = evaluate_groups(truth, found([9], images=(1,)), CATEGORIES, Split((2,), (0, 1, 3)), ["base"])
    assert 0 < alone["base"]["segm"]["AP"] < 100
    assert results["base"]["segm"]["AP"] == pytest.approx((100 + alone["base"]["segm"]["AP"]) / 2)


def test_detections_of_the_other_group_neither_help_nor_harm(truth: Path) -> None:
    wrong = [{**one, "segmentation": rle(0, 0, 5, 5), "score": 0.99} for one in found([2, 9])]
    clean = evaluate_groups(truth, found([5]), CATEGORIES, SPLIT, ["novel"])
    noisy = evaluate_groups(truth, found([5]) + wrong, CATEGORIES, SPLIT, ["novel"])
    assert clean["novel"] == noisy["novel"]


def test_all_is_the_usual_evaluation(truth: Path) -> None:
    detections = found([2, 5]) + found([9], images=(2,))
    usual = evaluate_coco(truth, detections, class_agnostic=False)
    assert evaluate_groups(truth, detections, CATEGORIES, SPLIT, ["all"])["all"] == usual


def test_a_group_without_objects_has_no_number(truth: Path) -> None:
    results = evaluate_groups(truth, found([2]), CATEGORIES, Split(base=(0, 1, 2), novel=(3,)))
    assert results["novel"]["segm"]["AP"] is None
    lines = format_groups(results).splitlines()
    assert lines[0].split() == ["AP", "AP50", "AP75", "APs", "APm", "APl"]
    assert lines[1].split() == ["novel", *["-"] * 6]
    assert lines[2].split()[:2] == ["base", "33.3"]


@pytest.mark.parametrize(("ids", "agnostic"), [([], False), ([3], False), ([2], True)])
def test_categories_that_cannot_be_evaluated_are_refused(truth: Path, ids: list[int], agnostic: bool) -> None:
    with pytest.raises(UserError, match="Categories to evaluate"):
        evaluate_coco(truth, found([2]), class_agnostic=agnostic, category_ids=ids)
