"""Exports read back by the libraries that they are for: those of the extra `dev`, and others where they are there.

The others would replace OpenCV, pandas or starlette: `pip install` them into an environment of their own, and run this
file there.
"""

from pathlib import Path

import cv2
import numpy as np
import pytest

from makers import iou, stored
from saliency_prompt.pipeline.export.choice import Choice
from saliency_prompt.pipeline.export.coco import export_coco, export_fiftyone
from saliency_prompt.pipeline.export.cvat import export_cvat
from saliency_prompt.pipeline.export.hugging_face import export_hugging_face
from saliency_prompt.pipeline.export.yolo import export_yolo


def test_supervision_reads_coco_and_yolo(photographed, tmp_path: Path) -> None:
    supervision = pytest.importorskip("supervision")
    dataset = photographed()
    truth = stored(dataset)
    export_fiftyone(dataset, str(tmp_path / "f"))
    data, labels = str(tmp_path / "f" / "data"), str(tmp_path / "f" / "labels.json")
    coco = supervision.DetectionDataset.from_coco(data, labels, force_masks=True)
    export_yolo(dataset, str(tmp_path / "y"), tolerance=0)
    read = {str(Path(path).relative_to(data)): found.mask for path, _, found in coco}
    for name, masks in truth.items():
        if masks:
            assert all(iou(a, b) == 1 for a, b in zip(np.stack(masks).astype(bool), read[name], strict=True))
    home = tmp_path / "y"
    for part in ("images", "labels"):  # it takes flat folders alone
        for path in sorted((home / part).rglob("*.*")):
            path.rename(home / part / path.name)
    yolo = supervision.DetectionDataset.from_yolo(
        str(home / "images"), str(home / "labels"), str(home / "data.yaml"), force_masks=True
    )
    checked = 0
    for path, _, found in yolo:
        masks = next(masks for name, masks in truth.items() if name.endswith(Path(path).name))
        for mine, theirs in zip(masks, found.mask if masks else [], strict=True):
            edge = cv2.dilate(mine, np.ones((3, 3), np.uint8)) - cv2.erode(mine, np.ones((3, 3), np.uint8))
            assert (edge[mine.astype(bool) != theirs] > 0).all()  # its fill takes pixels that the outline touches
            checked += 1
    assert checked == sum(map(len, truth.values()))


def test_datasets_reads_the_folder(photographed, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    dataset = photographed()
    truth = stored(dataset)
    export_hugging_face(dataset, str(tmp_path / "h"))
    loaded = datasets.load_dataset(str(tmp_path / "h"), cache_dir=str(tmp_path / "cache"))["train"]
    assert len(loaded) == len(truth)
    for row in loaded:
        assert row["image"].size == (row["width"], row["height"])
        assert len(row["objects"]["score"]) == len(truth[row["file_name"]])


def test_ultralytics_loads_the_folder(photographed, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    pytest.importorskip("ultralytics", reason="ultralytics is not installed: it brings a second OpenCV")
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    dataset = photographed()
    truth = stored(dataset)
    export_yolo(dataset, str(tmp_path / "y"), Choice(shares=(0.7, 0.3)), tolerance=0)
    about = check_det_dataset(str(tmp_path / "y" / "data.yaml"), autodownload=False)
    assert about["names"] == {0: "object"}
    seen = 0
    for part in ("train", "val"):
        loader = YOLODataset(img_path=about[part], data=about, task="segment", augment=False, cache=False)
        for one in loader.labels:
            name = Path(one["im_file"]).relative_to(tmp_path / "y" / "images" / part).as_posix()
            height, width = one["shape"]
            masks = truth[name]
            assert len(one["segments"]) == len(masks)
            for points, mask in zip(one["segments"], masks, strict=True):
                assert mask.shape == (height, width)
                drawn = np.zeros(mask.shape, np.uint8)
                cv2.fillPoly(drawn, [np.round(points * [width, height] - 0.5).astype(np.int32)], 1)
                edge = cv2.dilate(mask, np.ones((3, 3), np.uint8)) - cv2.erode(mask, np.ones((3, 3), np.uint8))
                assert (edge[drawn != mask] > 0).all()  # its fill takes pixels that the outline touches
                seen += 1
    assert seen == sum(map(len, truth.values()))


def test_datumaro_reads_coco_and_cvat(photographed, tmp_path: Path) -> None:
    datumaro = pytest.importorskip("datumaro", reason="datumaro is not installed: it wants older pandas and pyarrow")
    dataset = photographed()
    truth = stored(dataset)
    (tmp_path / "c" / "annotations").mkdir(parents=True)
    (tmp_path / "c" / "images").symlink_to(tmp_path / "photos")
    export_coco(dataset, str(tmp_path / "c" / "annotations" / "instances_train.json"))
    read = {item.id: item for item in datumaro.Dataset.import_from(str(tmp_path / "c"), "coco_instances")}
    assert set(read) == {name.removesuffix(".png") for name in truth}
    for name, masks in truth.items():
        objects = [one for one in read[name.removesuffix(".png")].annotations if hasattr(one, "image")]  # not boxes
        found = sorted(objects, key=lambda one: one.id)
        for one, mask in zip(found, masks, strict=True):
            np.testing.assert_array_equal(one.image, mask)
    export_cvat(dataset, str(tmp_path / "c" / "p.xml"), polygons=True, tolerance=0)
    read = {item.id: item for item in datumaro.Dataset.import_from(str(tmp_path / "c" / "p.xml"), "cvat")}
    assert set(read) == {name.removesuffix(".png") for name in truth}
    for name, masks in truth.items():
        found = read[name.removesuffix(".png")].annotations
        assert len({one.group for one in found}) == len(masks)
        assert sum(one.get_area() for one in found) == pytest.approx(sum(mask.sum() for mask in masks), rel=0.02)


def test_fiftyone_imports_the_folder(photographed, tmp_path: Path) -> None:
    coco = pytest.importorskip("fiftyone.utils.coco", reason="fiftyone is not installed: it wants an older OpenCV")
    dataset = photographed()
    truth = stored(dataset)
    export_fiftyone(dataset, str(tmp_path / "f"))
    importer = coco.COCODetectionDatasetImporter(dataset_dir=str(tmp_path / "f"), label_types="segmentations")
    seen = set()
    with importer:
        for path, _, label in importer:
            name = Path(path).relative_to(tmp_path / "f" / "data").as_posix()
            seen.add(name)
            found = [] if label is None else label.detections
            for one, mask in zip(found, truth[name], strict=True):
                x, y = (round(one.bounding_box[i] * mask.shape[1 - i]) for i in (0, 1))
                again = np.zeros(mask.shape, bool)
                again[y : y + one.mask.shape[0], x : x + one.mask.shape[1]] = one.mask
                assert iou(again, mask.astype(bool)) == 1
    assert seen == set(truth)
