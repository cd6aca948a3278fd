"""A data set as PNG files: one of numbers for each photograph, or one black and white for each mask."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from ...schemas.errors import UserError
from ...store.dataset import Dataset
from .choice import EVERYTHING, Choice
from .photographs import Photographs
from .stream import Photo, Selected
from .target import ExportReport, whole_folder

COLUMNS = ("file", "image", "image_id", "split", "value", "label", "score", "area", "x", "y", "w", "h")


def export_png(
    dataset: Dataset,
    path: str,
    choice: Choice = EVERYTHING,
    *,
    class_names: Sequence[str] = (),
    each: bool = False,
) -> ExportReport:
    """Write PNG masks into a folder, below a folder for each part if there are several, and list them in `masks.csv`.

    One file for each photograph, in which 0 is no mask and 1 the best one, which hides the others (8 bits, 16 above
    255 masks); or with `each` a folder for each photograph with a file for each mask, 255 inside. Raises UserError.
    """
    selected = Selected(dataset, choice, class_names)
    photographs = Photographs(dataset, "none")
    images = annotations = 0
    with whole_folder(path) as folder, (folder / "masks.csv").open("w", newline="", encoding="utf-8") as out:
        rows = csv.writer(out)
        rows.writerow(COLUMNS)
        for photo in selected.photos():
            stem = photographs.name(photo).with_suffix("")
            split = choice.splits[photo.part]
            home = PurePosixPath(split) / stem if len(choice.splits) > 1 else stem
            drawn = _each(photo, home) if each else _index(photo, home)
            for name, pixels in drawn:
                _save(folder / name, pixels)
            for rank, one in enumerate(photo.instances):
                name = home / f"{rank:03d}.png" if each else home.with_name(f"{home.name}.png")
                label = selected.class_names[one.label]
                facts = (photo.ref.file_name, photo.number, split, 255 if each else rank + 1, label)
                rows.writerow([str(name), *facts, one.score, one.area, *(int(value) for value in one.bbox)])
            images, annotations = images + 1, annotations + len(photo.instances)
    return ExportReport(images, annotations, selected.quarantined, (Path(path),))


def _each(photo: Photo, home: PurePosixPath) -> Iterator[tuple[PurePosixPath, npt.NDArray[np.uint8]]]:
    for rank in range(len(photo.instances)):
        yield home / f"{rank:03d}.png", _mask(photo, rank) * np.uint8(255)


def _index(
    photo: Photo, home: PurePosixPath
) -> Iterator[tuple[PurePosixPath, npt.NDArray[np.uint8] | npt.NDArray[np.uint16]]]:
    numbers = np.zeros((photo.height, photo.width), np.uint16)
    for rank in reversed(range(len(photo.instances))):
        numbers[_mask(photo, rank) > 0] = rank + 1
    small = len(photo.instances) <= 255
    yield home.with_name(f"{home.name}.png"), numbers.astype(np.uint8) if small else numbers


def _mask(photo: Photo, rank: int) -> npt.NDArray[np.uint8]:
    counts = photo.instances[rank].counts
    mask: npt.NDArray[np.uint8] = coco_mask.decode({"size": [photo.height, photo.width], "counts": counts})
    return mask


def _save(path: Path, pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    good, data = cv2.imencode(".png", pixels)
    if not good:
        raise UserError(f"{path} cannot be written as PNG: export as RLE with `export coco`.")
    path.write_bytes(data.tobytes())
