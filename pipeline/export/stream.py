"""The photographs of a data set with the masks that were chosen, one after another."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...schemas.errors import UserError
from ...schemas.records import ImageRef
from ...store.dataset import Dataset, Generations
from ...store.seals import Sum
from .choice import Choice

log = logging.getLogger(__name__)

LARGEST_KEPT_ID = 2**31 - 1  # JavaScript and doubles lose digits from 2^53 on, some readers use 32 bits


@dataclass(frozen=True, slots=True, eq=False)
class Instance:
    """One mask: COCO compressed RLE, box XYWH and area in pixels, score, and the index of its class."""

    counts: bytes
    bbox: tuple[float, float, float, float]
    area: int
    score: float
    label: int


@dataclass(frozen=True, slots=True, eq=False)
class Photo:
    """A photograph with its masks, best first. `number` is its id in what is written, `part` that of its split."""

    number: int
    part: int
    ref: ImageRef
    width: int
    height: int
    exif_orientation: int
    instances: list[Instance]


class Selected:
    """A data set as it was when this was made, less what was not chosen. Quarantined images are left out.

    Image ids are kept if they are small, else photographs are numbered from 1. `class_names` are those given, or
    those that the data set has, or `object` alone. Raises UserError if there are fewer names than classes, or if a
    shard is damaged.
    """

    def __init__(self, dataset: Dataset, choice: Choice, class_names: Sequence[str] = ()) -> None:
        self.dataset = dataset
        self.choice = choice
        self._generations: Generations = (
            dataset.generations()
        )  # the same in every pass, whatever is committed meanwhile
        missing = int((self._generations < 0).sum())
        if missing:
            log.warning(
                "%d of %d shards are not computed yet: their images are left out", missing, dataset.card.n_shards
            )
        total, ids, classes = Sum(), [np.empty(0, np.int64)], 0
        for commit in dataset.checked_commits(self._generations):
            total.add(commit)
            images = dataset.read_images(commit)
            ids.append(images["image_id"].to_numpy()[self._usable(images)])
            if "label" in dataset.card.mask_columns and commit.counts.masks:
                classes = max(classes, int(dataset.read_masks(commit)["label"].to_numpy().max()) + 1)
        self.quarantined = total.counts.quarantined
        self.root_hash = None if missing else total.seal(dataset.card).root_hash
        ids_N = np.concatenate(ids)
        small = not len(ids_N) or int(ids_N.max()) <= LARGEST_KEPT_ID
        self._numbers = ids_N if small else np.arange(1, len(ids_N) + 1)
        self._parts: npt.NDArray[np.int8] = choice.split(ids_N)
        self.class_names = _names(dataset, classes, class_names)

    def __len__(self) -> int:
        """How many photographs."""
        return len(self._numbers)

    def photos(self, *, masks: bool = True, part: int | None = None) -> Iterator[Photo]:
        """The photographs in the data set's order, of one part if one is named; without `masks` none is read."""
        place = 0
        for commit in self.dataset.commits(self._generations):
            images = self.dataset.read_images(commit)
            table = self.dataset.read_masks(commit) if masks else None
            refs = self.dataset.refs_of(commit, images)
            for i in self._usable(images).tolist():
                number, its_part = int(self._numbers[place]), int(self._parts[place])
                place += 1
                if part is not None and its_part != part:
                    continue
                row = {name: images[name][i].as_py() for name in _FACTS}
                instances = [] if table is None else self._instances(table.slice(row["first_mask"], row["n_masks"]))
                yield Photo(number, its_part, refs[i], row["width"], row["height"], row["exif_orientation"], instances)

    def _usable(self, images: pa.Table) -> npt.NDArray[np.int64]:
        """Rows of images that are written."""
        about = zip(images["status"].to_pylist(), images["image_id"].to_pylist(), strict=True)
        taken = [status != "quarantined" and self.choice.takes_image(image_id) for status, image_id in about]
        return np.flatnonzero(np.array(taken, bool))

    def _instances(self, masks: pa.Table) -> list[Instance]:
        rows = self.choice.rows(masks)
        chosen = masks.take(pa.array(rows, pa.int64()))
        labels = chosen["label"].to_pylist() if "label" in chosen.column_names else [0] * len(rows)
        columns = (chosen[name].to_pylist() for name in ("counts", "bbox", "area"))
        return [Instance(*row) for row in zip(*columns, _shortest(chosen["score"]), labels, strict=True)]


_FACTS = ("width", "height", "exif_orientation", "first_mask", "n_masks")


def _names(dataset: Dataset, classes: int, given: Sequence[str]) -> tuple[str, ...]:
    if given:
        if len(given) < classes:
            raise UserError(f"{dataset.url} has {classes} classes, but {len(given)} names were given: name all.")
        return tuple(given)
    if known := stored_class_names(dataset):
        return known
    return tuple(f"class_{i}" for i in range(classes)) if classes else ("object",)


def stored_class_names(dataset: Dataset) -> tuple[str, ...]:
    """The names of the classes that a data set says of its labels; none if it says none."""
    section: Any = dataset.card.config.get("masks", {})
    names = section.get("class_names", []) if isinstance(section, dict) else []
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _shortest(column: pa.ChunkedArray) -> list[float]:
    """Numbers that print with the digits fp32 has, not with those of its fp64 neighbour."""
    values: list[float] = column.to_numpy().astype(str).astype(np.float64).tolist()
    return values
