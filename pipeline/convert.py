"""Annotations of other data sets as COCO files (METHOD 11.4 and 11.5); annotation ids start at 1."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from ..schemas.errors import UserError
from ..stages.header import parse_header

CITYSCAPES = {
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
VOC = dict(
    enumerate(
        (
            *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable"),
            *("dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
        ),
        start=1,
    )
)
POINTS = 14  # of a CTW1500 polygon
_SUFFIX = "_gtFine_instanceIds.png"

Entry = tuple[str, int, int, list[dict[str, Any]]]  # file name, height, width, annotations


def convert(kind: str, source: Path, out: Path) -> tuple[int, int]:
    """Write a COCO file and give the numbers of images and annotations. Raises UserError for what is no such data."""
    if kind not in CONVERTERS:
        raise UserError(f"There is no converter {kind!r}: take one of {', '.join(CONVERTERS)}.")
    if not source.is_dir():
        raise UserError(f"{source} is no folder: give the one that the data set was unpacked into.")
    read, categories = CONVERTERS[kind]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for name, height, width, found in read(source):
        images.append({"id": len(images) + 1, "file_name": name, "height": height, "width": width})
        for one in found:
            annotations.append({"iscrowd": 0, **one, "id": len(annotations) + 1, "image_id": len(images)})
    if not images:
        raise UserError(f"{source} holds no annotations of {kind}: give the folder that they lie in.")
    listed = [{"id": number, "name": name} for number, name in categories.items()]
    try:
        out.write_text(json.dumps({"images": images, "annotations": annotations, "categories": listed}))
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}): choose another file.") from None
    return len(images), len(annotations)


def read_cityscapes(source: Path) -> Iterator[Entry]:
    """GtFine's instanceIds: pixels of 1000 and more are class * 1000 + instance, those from 24 on groups (crowds)."""
    for path in sorted(source.rglob(f"*{_SUFFIX}")):
        ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if ids is None or ids.ndim != 2:
            raise UserError(f"{path} is no picture of instance ids: unpack gtFine again.")
        found = []
        for value in np.unique(ids).tolist():
            category = value // 1000 if value >= 1000 else value
            if category in CITYSCAPES:
                found.append({**_from_mask(ids == value), "category_id": category, "iscrowd": int(value < 1000)})
        city = path.parent.name
        name = f"{city}/{path.name.removesuffix(_SUFFIX)}_leftImg8bit.png"
        yield name, ids.shape[0], ids.shape[1], found


def read_ctw1500(source: Path) -> Iterator[Entry]:
    """Training annotations in XML, test ones in text files: 14 points in absolute pixels; images lie beside them."""
    photographs = {p.stem: p for p in sorted(source.rglob("*")) if p.suffix.lower() in (".jpg", ".jpeg", ".png")}
    for path in sorted(source.rglob("*")):
        if path.suffix.lower() == ".xml":
            polygons, stem = list(_polygons_of_xml(path)), path.stem
        elif path.suffix.lower() == ".txt" and re.fullmatch(r"(000)?\d+", path.stem):
            polygons, stem = list(_polygons_of_text(path)), path.stem
        else:
            continue
        photograph = photographs.get(stem) or photographs.get(stem.removeprefix("000"))
        if photograph is None:
            raise UserError(f"There is no photograph for {path}: put the images below {source} as well.")
        header = parse_header(photograph.read_bytes()[: 1 << 20])
        found = [_from_polygon(polygon) for polygon in polygons]
        yield photograph.relative_to(source).as_posix(), header.height, header.width, found


def read_textdet(source: Path) -> Iterator[Entry]:
    """MMOCR's text detection JSON: polygons of any length; text that is to be ignored becomes a crowd."""
    for path in sorted(source.rglob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.get("metainfo", {}).get("dataset_type") != "TextDetDataset":
                continue
            for image in content["data_list"]:
                found = []
                for one in image["instances"]:
                    polygon = _from_polygon(np.array(one["polygon"], np.float64).reshape(-1, 2))
                    found.append({**polygon, "iscrowd": int(one.get("ignore", False))})
                yield Path(image["img_path"]).name, int(image["height"]), int(image["width"]), found
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is no textdet file ({error!r}): unpack the annotations again.") from None


def read_voc(source: Path) -> Iterator[Entry]:
    """Boxes of Pascal VOC's XML, whose corners count from 1 and are inside; difficult objects become crowds."""
    numbers = {name: number for number, name in VOC.items()}
    for path in sorted(source.rglob("*.xml")):
        try:
            root = ET.parse(path).getroot()  # noqa: S314  (expat refuses entity bombs; local file)
            if root.tag != "annotation":
                continue
            found = []
            for one in root.iter("object"):
                left, top, right, bottom = (
                    float(one.findtext(f"bndbox/{side}") or "nan") for side in ("xmin", "ymin", "xmax", "ymax")
                )
                box = [left - 1, top - 1, right - left + 1, bottom - top + 1]
                if not all(np.isfinite(box)) or min(box[2:]) <= 0:
                    raise ValueError(f"box {box}")
                crowd = int(one.findtext("difficult") or 0)
                number = numbers[one.findtext("name") or ""]
                found.append({"bbox": box, "area": box[2] * box[3], "category_id": number, "iscrowd": crowd})
            size = (int(root.findtext("size/height") or 0), int(root.findtext("size/width") or 0))
            yield root.findtext("filename") or f"{path.stem}.jpg", *size, found
        except (ET.ParseError, ValueError, KeyError) as error:
            raise UserError(f"{path} is no annotation of VOC ({error!r}): unpack the annotations again.") from None


def _polygons_of_xml(path: Path) -> Iterator[npt.NDArray[np.float64]]:
    try:
        boxes = ET.parse(path).getroot().iter("box")  # noqa: S314  (expat refuses entity bombs; local file)
    except ET.ParseError as error:
        raise UserError(f"{path} is no XML ({error}): unpack the annotations again.") from None
    for box in boxes:
        yield _points(path, (box.findtext("segs") or "").split(","))


def _polygons_of_text(path: Path) -> Iterator[npt.NDArray[np.float64]]:
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        if line.strip():
            yield _points(path, line.split(",####")[0].split(","))


def _points(path: Path, numbers: list[str]) -> npt.NDArray[np.float64]:
    try:
        values = np.array([float(number) for number in numbers[: 2 * POINTS]])
        return values.reshape(POINTS, 2)
    except ValueError:
        raise UserError(f"{path} has a line without {2 * POINTS} numbers: unpack the annotations again.") from None


def _from_polygon(points: npt.NDArray[np.float64]) -> dict[str, Any]:
    x, y = points.T
    area = 0.5 * abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1)))
    low, high = points.min(0), points.max(0)
    box = [*map(float, low), *map(float, high - low)]
    return {"segmentation": [points.flatten().tolist()], "area": area, "bbox": box, "category_id": 1}


def _from_mask(mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    counts = {"size": rle["size"], "counts": rle["counts"].decode("ascii")}
    return {"segmentation": counts, "area": float(mask.sum()), "bbox": coco_mask.toBbox(rle).tolist()}


CONVERTERS: dict[str, tuple[Callable[[Path], Iterator[Entry]], dict[int, str]]] = {
    "cityscapes": (read_cityscapes, CITYSCAPES),
    "ctw1500": (read_ctw1500, {1: "text"}),
    "textdet": (read_textdet, {1: "text"}),
    "voc": (read_voc, VOC),
}
