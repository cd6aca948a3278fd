"""Every format, read back by a parser that knows nothing of the writer; and by its own library where it is there."""

import csv
import json
import logging
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from pycocotools import mask as coco_mask

from makers import iou, stored
from saliency_prompt.pipeline.export.choice import Choice
from saliency_prompt.pipeline.export.coco import export_coco, export_fiftyone
from saliency_prompt.pipeline.export.cvat import export_cvat
from saliency_prompt.pipeline.export.hugging_face import export_hugging_face
from saliency_prompt.pipeline.export.label_studio import export_label_studio
from saliency_prompt.pipeline.export.png import export_png
from saliency_prompt.pipeline.export.yolo import export_yolo
from saliency_prompt.schemas.errors import UserError


def filled(points_xy, height, width):
    rles = coco_mask.frPyObjects([np.asarray(points_xy, float).ravel().tolist()], height, width)
    return coco_mask.decode(coco_mask.merge(rles))


def test_coco_polygons_are_the_masks(photographed, tmp_path: Path) -> None:
    dataset = photographed()
    export_coco(dataset, str(tmp_path / "p.json"), polygons=True)
    content = json.loads((tmp_path / "p.json").read_text())
    names = {image["id"]: image for image in content["images"]}
    again: dict[str, list[np.ndarray]] = {image["file_name"]: [] for image in content["images"]}
    for one in content["annotations"]:
        image = names[one["image_id"]]
        rles = coco_mask.frPyObjects(one["segmentation"], image["height"], image["width"])
        again[image["file_name"]].append(coco_mask.decode(coco_mask.merge(rles)))
    for name, masks in stored(dataset).items():
        assert len(again[name]) == len(masks)
        for mine, theirs in zip(masks, again[name], strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_large_ids_become_small_and_parts_have_their_own_files(photographed, tmp_path: Path) -> None:
    dataset = photographed(big_ids=True)
    report = export_coco(dataset, str(tmp_path / "x.json"), Choice(top=1, shares=(0.75, 0.25)))
    parts = [json.loads((tmp_path / f"x-{name}.json").read_text()) for name in ("train", "val")]
    ids = [image["id"] for part in parts for image in part["images"]]
    assert sorted(ids) == list(range(1, report.images + 1))
    assert [len(part["images"]) for part in parts] == [8, 3]
    for part in parts:
        here = {image["id"] for image in part["images"]}
        owners = [one["image_id"] for one in part["annotations"]]
        assert set(owners) <= here
        assert len(owners) == len(set(owners))  # the best mask of each alone


def test_yolo(photographed, detector_card, tmp_path: Path) -> None:
    dataset = photographed(**detector_card)
    names = ["cat", "dog", "cow"]
    report = export_yolo(dataset, str(tmp_path / "y"), Choice(shares=(0.8, 0.2)), class_names=names, tolerance=0)
    about = yaml.safe_load((tmp_path / "y" / "data.yaml").read_text())
    assert about == {"train": "images/train", "val": "images/val", "names": dict(enumerate(names))}
    truth, seen, lines = stored(dataset), set(), 0
    for split in ("train", "val"):
        for path in sorted((tmp_path / "y" / about[split]).rglob("*.png")):
            name = path.relative_to(tmp_path / "y" / about[split]).as_posix()
            seen.add(name)
            height, width = cv2.imread(str(path)).shape[:2]
            text = Path(str(path).replace("/images/", "/labels/")).with_suffix(".txt").read_text().splitlines()
            assert len(text) == len(truth[name])
            for rank, line in enumerate(text):
                label, *numbers = line.split()
                points = np.array(numbers, float).reshape(-1, 2)
                assert points.min() >= 0
                assert points.max() <= 1
                assert int(label) == rank % 3
                assert iou(filled(points * [width, height], height, width), truth[name][rank]) > 0.97
                lines += 1
    assert seen == set(truth)
    assert (report.images, report.annotations) == (len(truth), lines)
    with pytest.raises(UserError, match="exists already"):
        export_yolo(dataset, str(tmp_path / "y"))


def test_cvat_masks_and_polygons(photographed, tmp_path: Path) -> None:
    dataset = photographed()
    truth = stored(dataset)
    export_cvat(dataset, str(tmp_path / "m.xml"))
    export_cvat(dataset, str(tmp_path / "p.xml"), polygons=True, tolerance=0)
    for image in ET.parse(tmp_path / "m.xml").getroot().iter("image"):
        masks = truth[image.get("name")]
        assert [int(one.get("z_order")) for one in image] == list(range(len(masks)))[::-1]
        for one, mask in zip(image, masks, strict=True):
            left, top, width, height = (int(one.get(key)) for key in ("left", "top", "width", "height"))
            flat, value = [], 0
            for run in one.get("rle").split(", "):
                flat += [value] * int(run)
                value = 1 - value
            again = np.zeros_like(mask)
            again[top : top + height, left : left + width] = np.array(flat).reshape(height, width)
            np.testing.assert_array_equal(again, mask)
    for image in ET.parse(tmp_path / "p.xml").getroot().iter("image"):
        masks = truth[image.get("name")]
        again = [np.zeros_like(mask) for mask in masks]
        for one in image:
            points = [pair.split(",") for pair in one.get("points").split(";")]
            again[int(one.get("group_id")) - 1] |= filled(points, int(image.get("height")), int(image.get("width")))
        for mine, theirs in zip(masks, again, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_label_studio(photographed, tmp_path: Path) -> None:
    dataset = photographed()
    truth = stored(dataset)
    export_label_studio(dataset, str(tmp_path / "t.json"), tolerance=0)
    tasks = json.loads((tmp_path / "t.json").read_text())
    assert len(tasks) == len(truth)
    for task in tasks:
        masks = truth[unquote(task["data"]["image"].partition("?d=")[2])]
        again = [np.zeros_like(mask) for mask in masks]
        for result in task["predictions"][0]["result"]:
            height, width = result["original_height"], result["original_width"]
            points = np.array(result["value"]["points"]) * [width / 100, height / 100]
            again[int(result["id"].split("-")[1])] |= filled(points, height, width)
        assert all(iou(mine, theirs) > 0.98 for mine, theirs in zip(masks, again, strict=True))
    interface = ET.parse(tmp_path / "t.config.xml").getroot()
    names = {result["from_name"] for task in tasks for result in task["predictions"][0]["result"]}
    assert names == {one.get("name") for one in interface.iter("PolygonLabels")}


def test_png_of_numbers_and_of_each(photographed, tmp_path: Path) -> None:
    dataset = photographed()
    truth = stored(dataset)
    export_png(dataset, str(tmp_path / "index"))
    export_png(dataset, str(tmp_path / "each"), Choice(shares=(0.5, 0.5)), each=True)
    for name, masks in truth.items():
        numbers = cv2.imread(str(tmp_path / "index" / name), cv2.IMREAD_UNCHANGED)
        hidden = np.zeros(numbers.shape, bool)
        for rank, mask in enumerate(masks, 1):
            np.testing.assert_array_equal(numbers == rank, mask.astype(bool) & ~hidden)
            hidden |= mask.astype(bool)
        assert (numbers[~hidden] == 0).all()
    with (tmp_path / "each" / "masks.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert len(rows) == sum(map(len, truth.values()))
    for row in rows:
        mask = cv2.imread(str(tmp_path / "each" / row["file"]), cv2.IMREAD_UNCHANGED)
        rank = int(Path(row["file"]).stem)
        np.testing.assert_array_equal(mask == 255, truth[row["image"]][rank].astype(bool))
        x, y, w, h = (int(row[key]) for key in "xywh")
        assert (mask > 0).sum() == (mask[y : y + h, x : x + w] > 0).sum() == int(row["area"])


def test_fiftyone_has_photographs_and_labels_side_by_side(photographed, tmp_path: Path) -> None:
    dataset = photographed()
    export_fiftyone(dataset, str(tmp_path / "f"), placing="copy")
    content = json.loads((tmp_path / "f" / "labels.json").read_text())
    truth = stored(dataset)
    assert {image["file_name"] for image in content["images"]} == set(truth)
    for image in content["images"]:
        path = tmp_path / "f" / "data" / image["file_name"]
        assert not path.is_symlink()
        assert cv2.imread(str(path)).shape[:2] == (image["height"], image["width"])
    assert len(content["annotations"]) == sum(map(len, truth.values()))


def test_hugging_face_parquet(photographed, tmp_path: Path) -> None:
    dataset = photographed()
    export_hugging_face(dataset, str(tmp_path / "h"), Choice(shares=(0.75, 0.25)))
    truth = stored(dataset)
    front = yaml.safe_load((tmp_path / "h" / "README.md").read_text().split("---")[1])
    assert [one["split"] for one in front["configs"][0]["data_files"]] == ["train", "validation"]
    rows = [row for path in sorted((tmp_path / "h" / "data").iterdir()) for row in pq.read_table(path).to_pylist()]
    assert {row["file_name"] for row in rows} == set(truth)
    for row in rows:
        pixels = cv2.imdecode(np.frombuffer(row["image"]["bytes"], np.uint8), cv2.IMREAD_COLOR)
        size = [row["height"], row["width"]]
        assert list(pixels.shape[:2]) == size
        for text, mask in zip(row["objects"]["segmentation"], truth[row["file_name"]], strict=True):
            np.testing.assert_array_equal(coco_mask.decode({"size": size, "counts": text}), mask)


def test_photographs_that_are_gone_are_left_out(photographed, tmp_path: Path, caplog) -> None:
    dataset = photographed()
    gone = min(stored(dataset))
    (tmp_path / "photos" / gone).unlink()
    with caplog.at_level(logging.WARNING):
        report = export_yolo(dataset, str(tmp_path / "y"))
    assert report.absent == 1
    assert "1 photographs are no longer" in caplog.text
    assert not (tmp_path / "y" / "labels" / "train" / gone).with_suffix(".txt").exists()
    for path in (tmp_path / "photos").rglob("*.png"):
        path.unlink()
    with pytest.raises(UserError, match="None of the photographs"):
        export_fiftyone(dataset, str(tmp_path / "f"))
    assert not (tmp_path / "f").exists()
    assert not (tmp_path / "f.partial").exists()


def test_too_few_names_are_refused(photographed, detector_card, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="3 classes, but 1 names"):
        export_coco(photographed(**detector_card), str(tmp_path / "x.json"), class_names=["a"])
    assert not (tmp_path / "x.json").exists()
