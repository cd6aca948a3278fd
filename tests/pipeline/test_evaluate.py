"""Results of any program against ground truth: which images count, and whose ids they have."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from typer.testing import CliRunner

from saliency_prompt.cli.app import app
from saliency_prompt.pipeline.evaluate import evaluate_results
from saliency_prompt.schemas.errors import UserError

SIDE = 80


def rle(x: int, y: int, side: int = 40) -> dict[str, Any]:
    mask = np.zeros((SIDE, SIDE), np.uint8, order="F")
    mask[y : y + side, x : x + side] = 1
    encoded = coco_mask.encode(mask)
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


@pytest.fixture
def gt(tmp_path: Path) -> Path:
    """Three images with an object each, of two categories, and one crowd."""
    objects = [(1, 1, 0), (2, 3, 0), (3, 3, 0), (3, 1, 1)]
    content = {
        "images": [{"id": i, "file_name": f"sub/{i}.png", "height": SIDE, "width": SIDE} for i in (1, 2, 3)],
        "categories": [{"id": 1, "name": "a"}, {"id": 3, "name": "b"}],
        "annotations": [
            {"id": n, "image_id": i, "category_id": c, "iscrowd": k, "area": 1600, "bbox": [5, 5, 40, 40]}
            | {"segmentation": rle(5, 5)}
            for n, (i, c, k) in enumerate(objects, 1)
        ],
    }
    path = tmp_path / "gt.json"
    path.write_text(json.dumps(content))
    return path


def results(tmp_path: Path, found: list[dict[str, Any]]) -> Path:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(found))
    return path


def one(image_id: int, category: int, **more: Any) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": category, "segmentation": rle(5, 5), "score": 0.9, **more}


def test_file_names_say_whose_results_they_are(tmp_path: Path, gt: Path) -> None:
    by_name = results(tmp_path, [one(2**60 + i, 1, file_name=f"{i}.png", source=0) for i in (1, 2, 3)])
    report = evaluate_results(by_name, gt)
    assert report["class_agnostic"]["segm"]["AP"] == pytest.approx(100)
    assert report["classes"]["segm"]["AP"] < 51  # the second category was not found
    assert (report["class_agnostic"]["images"], report["class_agnostic"]["objects"]) == (3, 3)
    by_id = results(tmp_path, [one(i, 1) for i in (1, 2, 3)])
    assert evaluate_results(by_id, gt)["class_agnostic"]["segm"]["AP"] == pytest.approx(100)
    crossed = results(tmp_path, [one(3 - i, 1, file_name=f"sub/{i}.png") for i in (1, 2)])  # ids that mean others
    assert evaluate_results(crossed, gt)["class_agnostic"]["segm"]["AR100"] == pytest.approx(100 * 2 / 3)


def test_photographs_and_lists_say_which_images_count(tmp_path: Path, gt: Path) -> None:
    found = results(tmp_path, [one(7, 1, file_name="1.png")])
    assert evaluate_results(found, gt)["class_agnostic"]["segm"]["AR100"] == pytest.approx(100 / 3)
    for name in ("1.png", "2.png", "unknown.png"):
        (tmp_path / "photos").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "photos" / name), np.zeros((SIDE, SIDE, 3), np.uint8))
    report = evaluate_results(found, gt, images=str(tmp_path / "photos"))["class_agnostic"]
    assert (report["images"], report["segm"]["AR100"]) == (2, pytest.approx(50))
    (tmp_path / "list.txt").write_text("1\n3\n")
    both = evaluate_results(found, gt, images=str(tmp_path / "photos"), listed=tmp_path / "list.txt")["class_agnostic"]
    assert (both["images"], both["objects"], both["segm"]["AR100"]) == (1, 1, pytest.approx(100))


def test_the_command_says_what_it_used(tmp_path: Path, gt: Path) -> None:
    found = results(tmp_path, [one(7, 1, file_name="1.png")])
    said = CliRunner().invoke(app, ["evaluate", str(found), "--gt", str(gt)])
    assert said.exit_code == 0, said.output
    assert f"3 images with 3 objects of {gt}" in said.output
    assert "class_agnostic segm" in said.output


@pytest.mark.parametrize("content", ["{}", "[1]", '[{"image_id": 1}]', '[{"image_id": 1, "score": 1}]', "no json"])
def test_files_that_are_no_results(tmp_path: Path, gt: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(UserError, match="no list of COCO results"):
        evaluate_results(path, gt)
