"""Evaluation without labels: lists of images, boxes alone, and what published programs got wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from corpus import write_scenes
from saliency_prompt.pipeline.evaluate import evaluate_dataset, listed_images
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.stages.evaluate import evaluate_coco
from saliency_prompt.store.dataset import Dataset


@pytest.fixture
def labelled(world, tmp_path: Path) -> tuple[Dataset, Path]:
    gt = write_scenes(tmp_path / "scenes", 4)
    dataset, _ = world.run(tmp_path / "scenes", "out", "filters.min_score=0.0", "filters.keep_best=true")
    return dataset, gt


def test_lists_name_images_in_any_of_the_usual_ways(labelled: tuple[Dataset, Path], tmp_path: Path) -> None:
    dataset, gt = labelled
    names = tmp_path / "list.txt"
    for text in ("scene_001\n\nscene_002\n", "x/y/scene_001.png\nscene_002.png -1\n", "101\n102"):
        names.write_text(text)
        assert listed_images(gt, names) == {101, 102}
    assert evaluate_dataset(dataset, gt, listed=names)["images"] == 2
    assert evaluate_dataset(dataset, gt)["images"] == 4
    for bad, words in (("scene_001\nscene_900", "Line 2"), ("\n", "names no image")):
        names.write_text(bad)
        with pytest.raises(UserError, match=words):
            listed_images(gt, names)
    with pytest.raises(UserError, match="readable"):
        listed_images(gt, tmp_path / "gone.txt")


def test_truth_of_boxes_alone(labelled: tuple[Dataset, Path], tmp_path: Path) -> None:
    dataset, gt = labelled
    whole = evaluate_dataset(dataset, gt)
    content = json.loads(gt.read_text())
    for one in content["annotations"]:
        del one["segmentation"]
        one["area"] = one["bbox"][2] * one["bbox"][3]
    bare = tmp_path / "boxes.json"
    bare.write_text(json.dumps(content))
    with pytest.raises(UserError, match="evaluate boxes only"):
        evaluate_dataset(dataset, bare)
    found = evaluate_dataset(dataset, bare, boxes=True)
    assert "segm" not in found
    assert found["bbox"]["AP"] == pytest.approx(whole["bbox"]["AP"])


def test_frames_of_videos_in_folders(world, tmp_path: Path) -> None:
    """UVO's annotations: one category of things without a name, frames below the folder of their video."""
    gt = write_scenes(tmp_path / "frames" / "video_1", 2)
    content = json.loads(gt.read_text())
    for image in content["images"]:
        image["file_name"] = f"video_1/{image['file_name']}"
    for one in content["annotations"]:
        one["category_id"] = 1
    content["categories"] = [{"id": 1, "name": "object", "supercategory": "object"}]
    uvo = tmp_path / "UVO_frame_val.json"
    uvo.write_text(json.dumps({**content, "info": {}, "licenses": []}))
    gt.unlink()
    dataset, _ = world.run(tmp_path / "frames", "out", "filters.min_score=0.0", "filters.keep_best=true")
    found = evaluate_dataset(dataset, uvo, all_images=True)
    assert found["images"] == 2
    assert found["segm"]["AR100"] > 0


def test_masks_without_classes_are_not_judged_as_the_first_class(tmp_path: Path) -> None:
    """The released trainer prints the AP of one class for masks that have none."""
    gt = write_scenes(tmp_path / "scenes", 2)
    truth = json.loads(gt.read_text())["annotations"]
    found = [
        {"image_id": one["image_id"], "category_id": 3, "score": 0.9, "segmentation": one["segmentation"]}
        for one in truth
    ]
    assert evaluate_coco(gt, found)["segm"]["AP"] == pytest.approx(100)
    assert evaluate_coco(gt, found, class_agnostic=False)["segm"]["AP"] < 60


def test_an_annotation_with_the_number_zero_counts(tmp_path: Path) -> None:
    """The released program numbers masks from 0, and the first is then never matched."""
    gt = write_scenes(tmp_path / "scenes", 1)
    content = json.loads(gt.read_text())
    for number, one in enumerate(content["annotations"]):
        one["id"] = number
    gt.write_text(json.dumps(content))
    found = [
        {"image_id": 100, "category_id": 1, "score": 0.9, "segmentation": one["segmentation"]}
        for one in content["annotations"]
    ]
    assert evaluate_coco(gt, found)["segm"]["AP"] == pytest.approx(100)


def test_free_masks_need_no_annotations_and_are_exported_from_one(world, tmp_path: Path) -> None:
    """The released program reads the annotations of COCO for its list of categories."""
    write_scenes(tmp_path / "scenes", 2)
    (tmp_path / "gt.json").unlink()
    dataset, report = world.run(tmp_path / "scenes", "out", "filters.min_score=0.0", "filters.keep_best=true")
    assert report.seal is not None
    from saliency_prompt.pipeline.export.coco import export_coco

    export_coco(dataset, str(tmp_path / "coco.json"))
    content = json.loads((tmp_path / "coco.json").read_text())
    assert [one["id"] for one in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))
    for one in content["annotations"]:  # XYWH around the mask, not two corners
        assert one["bbox"] == pytest.approx(np.array(coco_mask.toBbox(one["segmentation"])).tolist())
