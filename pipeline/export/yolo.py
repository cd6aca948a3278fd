"""A data set for YOLO segmentation (ultralytics): a text file of polygons beside each photograph, and `data.yaml`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from pycocotools import mask as coco_mask

from ...stages.polygons import outline, single_ring
from ...store.dataset import Dataset
from .choice import EVERYTHING, Choice
from .photographs import Photographs, Placing
from .stream import Instance, Photo, Selected
from .target import ExportReport, whole_folder


def export_yolo(
    dataset: Dataset,
    path: str,
    choice: Choice = EVERYTHING,
    *,
    class_names: Sequence[str] = (),
    tolerance: float = 1.0,
    placing: Placing = "link",
) -> ExportReport:
    """Write `images/SPLIT`, `labels/SPLIT` and `data.yaml`; photographs without masks have an empty file.

    A line is a class and one polygon in fractions of the image: parts and holes of a mask are joined by lines without
    width, since the format has one ring a mask. Raises UserError.
    """
    selected = Selected(dataset, choice, class_names)
    photographs = Photographs(dataset, placing)
    images = annotations = 0
    with whole_folder(path) as folder:
        for photo in selected.photos():
            split = choice.splits[photo.part]
            name = photographs.name(photo)
            if not photographs.put(photo, folder / "images" / split / name):
                continue
            labels = folder / "labels" / split / name.with_suffix(".txt")
            labels.parent.mkdir(parents=True, exist_ok=True)
            labels.write_text("".join(_line(photo, one, tolerance) for one in photo.instances), encoding="ascii")
            images, annotations = images + 1, annotations + len(photo.instances)
        photographs.refuse_none(images)
        splits = dict.fromkeys(("train", "val"), "images/train") | {name: f"images/{name}" for name in choice.splits}
        about = {**splits, "names": dict(enumerate(selected.class_names))}
        (folder / "data.yaml").write_text(yaml.safe_dump(about, sort_keys=False, allow_unicode=True), encoding="utf-8")
    photographs.tell()
    return ExportReport(images, annotations, selected.quarantined, (Path(path),), photographs.absent)


def _line(photo: Photo, instance: Instance, tolerance: float) -> str:
    mask = coco_mask.decode({"size": [photo.height, photo.width], "counts": instance.counts})
    ring_n2 = single_ring(outline(mask, tolerance)) / np.array([photo.width, photo.height])
    return f"{instance.label} {' '.join(f'{value:.6f}' for value in ring_n2.ravel())}\n"
