"""A data set as COCO annotation files, as they are read by pycocotools, detectron2, mmdetection and FiftyOne."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from pycocotools import mask as coco_mask

from ...stages.polygons import outline, without_holes
from ...store.dataset import Dataset
from .choice import EVERYTHING, Choice
from .photographs import Photographs, Placing
from .stream import Instance, Photo, Selected
from .target import ExportReport, part_path, refuse_url, whole_file, whole_folder

LABELS = "labels.json"  # beside `data/`: how FiftyOne lays out a COCO data set


def export_coco(
    dataset: Dataset,
    path: str,
    choice: Choice = EVERYTHING,
    *,
    class_names: Sequence[str] = (),
    polygons: bool = False,
    tolerance: float = 0.0,
) -> ExportReport:
    """Write the chosen masks as COCO json, one file for each part; category and annotation ids from 1.

    Masks are RLEs, or polygons within `tolerance` pixels of them, each part of a mask a ring. Images without masks are
    listed. Memory does not grow with the data set. A file appears when it is complete. Raises UserError if it cannot
    be written or a shard is damaged.
    """
    refuse_url(path)
    selected = Selected(dataset, choice, class_names)
    images = annotations = 0
    paths = []
    for part, split in enumerate(choice.splits):
        target = part_path(Path(path), split, len(choice.splits))
        with whole_file(target) as out:
            names = ((photo, photo.ref.file_name) for photo in selected.photos(masks=False, part=part))
            photos = selected.photos(part=part)
            counted = _write(out, selected, names, photos, tolerance if polygons else None)
        images, annotations = images + counted[0], annotations + counted[1]
        paths.append(target)
    return ExportReport(images, annotations, selected.quarantined, tuple(paths))


def export_fiftyone(
    dataset: Dataset,
    path: str,
    choice: Choice = EVERYTHING,
    *,
    class_names: Sequence[str] = (),
    placing: Placing = "link",
) -> ExportReport:
    """Write a folder with `data/` (the photographs) and `labels.json`: FiftyOne's COCODetectionDataset.

    Of several parts each has such a folder. Photographs that are gone are left out. Raises as `export_coco`.
    """
    selected = Selected(dataset, choice, class_names)
    photographs = Photographs(dataset, placing)
    images = annotations = 0
    with whole_folder(path) as folder:
        for part, split in enumerate(choice.splits):
            home = folder / split if len(choice.splits) > 1 else folder
            named: dict[int, str] = {}
            for photo in selected.photos(masks=False, part=part):
                name = str(photographs.name(photo))
                if photographs.put(photo, home / "data" / name):
                    named[photo.number] = name
            with whole_file(home / LABELS) as out:
                photos = (photo for photo in selected.photos(masks=False, part=part) if photo.number in named)
                names = ((photo, named[photo.number]) for photo in photos)
                masked = (photo for photo in selected.photos(part=part) if photo.number in named)
                counted = _write(out, selected, names, masked, None, first=annotations + 1)
            images, annotations = images + counted[0], annotations + counted[1]
        photographs.refuse_none(images)
    photographs.tell()
    return ExportReport(images, annotations, selected.quarantined, (Path(path),), photographs.absent)


def _write(
    out: TextIO,
    selected: Selected,
    names: Iterable[tuple[Photo, str]],
    photos: Iterable[Photo],
    tolerance: float | None,
    first: int = 1,
) -> tuple[int, int]:
    """One json; how many images and annotations it has. `tolerance` is that of polygons, None for RLEs."""
    categories = [{"id": i, "name": name, "supercategory": "object"} for i, name in enumerate(selected.class_names, 1)]
    info = {"description": "Pseudo-labels", "root_hash": selected.root_hash}
    out.write(f'{{"info": {json.dumps(info)},\n"licenses": [],\n"images": [')
    images = _write_list(out, ({"id": p.number, "file_name": name, **_size(p)} for p, name in names))
    out.write(f'],\n"categories": {json.dumps(categories)},\n"annotations": [')
    annotations = _write_list(out, _annotations(photos, tolerance, first))
    out.write("]}\n")
    return images, annotations


def _write_list(out: TextIO, rows: Iterable[dict[str, Any]]) -> int:
    written = 0
    for row in rows:
        out.write(",\n" if written else "\n")
        out.write(json.dumps(row))
        written += 1
    return written


def _size(photo: Photo) -> dict[str, int]:
    return {"width": photo.width, "height": photo.height}


def _annotations(photos: Iterable[Photo], tolerance: float | None, first: int) -> Iterator[dict[str, Any]]:
    number = first  # 0 would read as "unmatched" to pycocotools
    for photo in photos:
        for instance in photo.instances:
            yield {
                "id": number,
                "image_id": photo.number,
                "category_id": instance.label + 1,
                "segmentation": _segmentation(photo, instance, tolerance),
                "bbox": instance.bbox,
                "area": instance.area,
                "iscrowd": 0,
                "score": instance.score,
            }
            number += 1


def _segmentation(photo: Photo, instance: Instance, tolerance: float | None) -> Any:
    size = [photo.height, photo.width]
    if tolerance is None:
        return {"size": size, "counts": instance.counts.decode("ascii")}
    mask = coco_mask.decode({"size": size, "counts": instance.counts})
    return [without_holes(part).ravel().tolist() for part in outline(mask, tolerance)]
