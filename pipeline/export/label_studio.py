"""A data set for Label Studio: tasks whose predictions people correct, and the labelling interface for them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
from pycocotools import mask as coco_mask

from ...stages.polygons import outline, without_holes
from ...store.dataset import Dataset
from .choice import EVERYTHING, Choice
from .stream import Instance, Photo, Selected
from .target import ExportReport, part_path, refuse_url, whole_file

LOCAL_FILES = "/data/local-files/?d="  # Label Studio's own address of files below its document root


def export_label_studio(
    dataset: Dataset,
    path: str,
    choice: Choice = EVERYTHING,
    *,
    class_names: Sequence[str] = (),
    tolerance: float = 1.0,
    photos_url: str = LOCAL_FILES,
) -> ExportReport:
    """Write tasks as json with polygons in per cent, and beside it `NAME.config.xml`, the labelling interface.

    `photos_url` is put before the photographs' names. Each part of a mask is a polygon of its own. Raises UserError.
    """
    refuse_url(path)
    selected = Selected(dataset, choice, class_names)
    images = annotations = 0
    paths = []
    for part, split in enumerate(choice.splits):
        target = part_path(Path(path), split, len(choice.splits))
        with whole_file(target) as out:
            out.write("[")
            for number, photo in enumerate(selected.photos(part=part)):
                results = [
                    result
                    for rank, instance in enumerate(photo.instances)
                    for result in _results(photo, instance, rank, selected.class_names, tolerance)
                ]
                task = {
                    "data": {"image": photos_url + quote(photo.ref.file_name), "image_id": photo.number},
                    "predictions": [{"model_version": selected.root_hash or "unfinished", "result": results}],
                }
                out.write(",\n" if number else "\n")
                out.write(json.dumps(task))
                images, annotations = images + 1, annotations + len(photo.instances)
            out.write("\n]\n")
        paths.append(target)
    interface = Path(path).with_suffix(".config.xml")
    with whole_file(interface) as out:
        out.write('<View>\n  <Image name="image" value="$image" zoom="true"/>\n')
        out.write('  <PolygonLabels name="label" toName="image">\n')
        out.writelines(f"    <Label value={quoteattr(name)}/>\n" for name in selected.class_names)
        out.write("  </PolygonLabels>\n</View>\n")
    return ExportReport(images, annotations, selected.quarantined, (*paths, interface))


def _results(
    photo: Photo, instance: Instance, rank: int, class_names: Sequence[str], tolerance: float
) -> list[dict[str, Any]]:
    mask = coco_mask.decode({"size": [photo.height, photo.width], "counts": instance.counts})
    per_cent = 100 / np.array([photo.width, photo.height])
    return [
        {
            "id": f"{photo.number}-{rank}-{number}",
            "type": "polygonlabels",
            "from_name": "label",
            "to_name": "image",
            "original_width": photo.width,
            "original_height": photo.height,
            "image_rotation": 0,
            "score": instance.score,
            "value": {
                "points": (without_holes(part) * per_cent).round(4).tolist(),
                "closed": True,
                "polygonlabels": [class_names[instance.label]],
            },
        }
        for number, part in enumerate(outline(mask, tolerance))
    ]
