"""Data sets of other tasks as sources of pairs: every class, part or object that occurs in a photograph is one.

Texts are those of the tasks (UniLSeg, Table 1): "all {class}", "the most salient object", a video's expressions.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from ...schemas.errors import UserError
from ...schemas.records import ImageRef
from ...schemas.training.unilseg import TaskData
from ...store.weights import sha256_of
from .folders import IGNORE, Videos, match_files, read_classes, read_labels, read_parts, read_salient, shift_classes
from .pairs import Pair
from .prompts import task_prompt


@dataclass(frozen=True, slots=True)
class Row:
    """A photograph, a text, and how its mask is read."""

    ref: ImageRef
    text: str
    read: Callable[[], dict[str, Any]]


@dataclass(slots=True)
class TaskPairs:
    """See `PairSource`."""

    name: str
    sha256: str
    rows: Sequence[Row]
    pseudo: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def pair(self, place: int) -> Pair:
        """See `PairSource`."""
        row = self.rows[place]
        return Pair(row.ref, [row.read()], [row.text])

    def texts(self) -> Iterator[str]:
        """See `PairSource`."""
        for row in self.rows:
            yield row.text


def open_task(data: TaskData) -> TaskPairs:
    """The pairs of a data set. Label images are all read once. Raises UserError if there are none."""
    if data.task == "part" and data.gt.endswith(".json"):
        rows, digest = _parts(data), sha256_of(Path(data.gt).expanduser())
    elif data.task == "rvos":
        rows, digest = _videos(data), sha256_of(Path(data.gt).expanduser())
    else:
        rows, digest = _label_images(data)
    if not rows:
        raise UserError(f"{data.gt} has nothing to train on: give the labels that belong to {data.images}.")
    return TaskPairs(data.gt, digest, rows)


def _label_images(data: TaskData) -> tuple[list[Row], str]:
    if data.task != "salient" and not data.classes:
        raise UserError(f"The labels in {data.gt} are numbers: give the file of their names as `classes`.")
    names = [] if data.task == "salient" else read_classes(Path(data.classes).expanduser())
    found = match_files(Path(data.images).expanduser(), Path(data.gt).expanduser())
    digest = hashlib.sha256("\n".join(names).encode())

    def numbers(path: Path) -> tuple[list[int], str]:
        labels = shift_classes(read_labels(path), zero_is_nothing=data.zero_is_nothing)
        return [int(one) for one in np.unique(labels) if one != IGNORE], sha256_of(path)

    rows: list[Row] = []
    with ThreadPoolExecutor(4) as pool:
        for one, (present, content) in zip(found, pool.map(numbers, [one.labels for one in found]), strict=True):
            digest.update(f"{one.ref.file_name} {content}\n".encode("utf-8", "surrogateescape"))
            if data.task == "salient":
                rows.append(Row(one.ref, task_prompt("salient"), partial(_salient, one.labels)))
                continue
            if present and present[-1] >= len(names):
                raise UserError(
                    f"{one.labels} has class {present[-1]}, and {data.classes} names {len(names)} (from 0): give the "
                    "file that belongs to the labels, or zero_is_nothing."
                )
            for number in present:
                read = partial(_class, one.labels, number, zero_is_nothing=data.zero_is_nothing)
                rows.append(Row(one.ref, task_prompt(data.task, names[number]), read))
    return rows, digest.hexdigest()


def _parts(data: TaskData) -> list[Row]:
    pictures, _ = read_parts(Path(data.gt).expanduser(), data.images)
    return [
        Row(picture.ref, task_prompt("part", name), partial(_same, rle))
        for picture in pictures
        for name, rle in picture.parts.items()
    ]


def _videos(data: TaskData) -> list[Row]:
    """Every expression on every annotated frame; the object may be gone there, and then the mask is empty."""
    if not data.annotations:
        raise UserError(f"Videos of {data.gt} are trained on with their masks: give their folder as `annotations`.")
    folder = Path(data.annotations).expanduser()
    videos = Videos(Path(data.gt).expanduser(), Path(data.images).expanduser(), folder)
    return [
        Row(videos.frame(video, frame), one.text, partial(_class, path, one.target, zero_is_nothing=False))
        for video, said in videos.by_video()
        for frame in videos.frames[video]
        if (path := folder / video / f"{frame}.png").is_file()
        for one in said
        if one.target is not None
    ]


def _same(rle: dict[str, Any]) -> dict[str, Any]:
    return rle


def _class(path: Path, number: int, *, zero_is_nothing: bool) -> dict[str, Any]:
    return _encode(shift_classes(read_labels(path), zero_is_nothing=zero_is_nothing) == number)


def _salient(path: Path) -> dict[str, Any]:
    return _encode(read_salient(path))


def _encode(mask_HW: npt.NDArray[np.bool_]) -> dict[str, Any]:
    return coco_mask.encode(np.asfortranarray(mask_HW.astype(np.uint8)))  # type: ignore[no-any-return]
