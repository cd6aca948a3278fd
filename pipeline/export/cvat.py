"""A data set for CVAT: "CVAT for images 1.1", masks as masks (which its brush edits) or as polygons."""

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from ...stages.polygons import outline, without_holes
from ...store.dataset import Dataset
from .choice import EVERYTHING, Choice
from .stream import Instance, Photo, Selected
from .target import ExportReport, part_path, refuse_url, whole_file


def export_cvat(
    dataset: Dataset,
    path: str,
    choice: Choice = EVERYTHING,
    *,
    class_names: Sequence[str] = (),
    polygons: bool = False,
    tolerance: float = 1.0,
) -> ExportReport:
    """Write annotations for upload to a CVAT task that has the same photographs, found by name.

    The best mask of an image lies on top. With `polygons` every part of a mask is a shape, grouped with its siblings.
    Raises UserError.
    """
    refuse_url(path)
    selected = Selected(dataset, choice, class_names)
    images = annotations = 0
    paths = []
    for part, split in enumerate(choice.splits):
        target = part_path(Path(path), split, len(choice.splits))
        with whole_file(target) as out:
            _write_head(out, selected.class_names)
            for number, photo in enumerate(selected.photos(part=part)):
                out.write(
                    f'  <image id="{number}" name={quoteattr(photo.ref.file_name)} '
                    f'width="{photo.width}" height="{photo.height}">\n'
                )
                for rank, instance in enumerate(photo.instances):
                    about = (
                        f"label={quoteattr(selected.class_names[instance.label])} "
                        f'source="auto" occluded="0" z_order="{len(photo.instances) - rank - 1}"'
                    )
                    if polygons:
                        _write_polygons(out, photo, instance, f'{about} group_id="{rank + 1}"', tolerance)
                    else:
                        _write_mask(out, photo, instance, about)
                out.write("  </image>\n")
                images, annotations = images + 1, annotations + len(photo.instances)
            out.write("</annotations>\n")
        paths.append(target)
    return ExportReport(images, annotations, selected.quarantined, tuple(paths))


def _write_head(out: TextIO, class_names: Sequence[str]) -> None:
    out.write(
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  <meta><task><labels>\n'
    )
    out.writelines(f"    <label><name>{escape(name)}</name><attributes></attributes></label>\n" for name in class_names)
    out.write("  </labels></task></meta>\n")


def _write_mask(out: TextIO, photo: Photo, instance: Instance, about: str) -> None:
    """Runs of the mask's box, row by row, the first of zeros; attributes of scores are the reader's own business."""
    left, top, width, height = (int(value) for value in instance.bbox)
    mask_hw = _decoded(photo, instance)[top : top + height, left : left + width]
    runs = ", ".join(map(str, row_runs(mask_hw)))
    out.write(f'    <mask {about} rle="{runs}" left="{left}" top="{top}" width="{width}" height="{height}"></mask>\n')


def _write_polygons(out: TextIO, photo: Photo, instance: Instance, about: str, tolerance: float) -> None:
    for part in outline(_decoded(photo, instance), tolerance):
        points = ";".join(f"{x:.2f},{y:.2f}" for x, y in without_holes(part))
        out.write(f'    <polygon {about} points="{points}"></polygon>\n')


def row_runs(mask_hw: npt.NDArray[np.uint8]) -> list[int]:
    """Lengths of the runs of a mask read row by row, beginning with zeros (0 of them if the first pixel is set)."""
    flat = np.concatenate([[0], mask_hw.ravel(), [2]])
    changes = np.flatnonzero(np.diff(flat))
    runs: list[int] = np.diff(np.concatenate([[0], changes])).tolist()
    return runs


def _decoded(photo: Photo, instance: Instance) -> npt.NDArray[np.uint8]:
    mask: npt.NDArray[np.uint8] = coco_mask.decode({"size": [photo.height, photo.width], "counts": instance.counts})
    return mask
