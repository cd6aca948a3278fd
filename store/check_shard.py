"""What must hold within one shard: files as committed, rows as planned, masks as their RLE says."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pycocotools import mask as coco_mask

from ..schemas.manifest import ShardCommit, ShardCounts
from ..schemas.records import ImageRef
from .check_rows import bad_rows, boxes_of, check_belonging, check_images, check_masks
from .damage import DamageError
from .dataset import Dataset, ShardTables
from .layout import commit_key
from .shard import IMAGES, MASKS, PROMPTS, SALIENCY
from .tables import check_array, check_maps

MIN_BOX_IOU = 0.99  # of a stored box and the tight box of its RLE


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that does not hold, in a file of a shard, or of the data set if there is no shard."""

    shard_id: int | None
    file: str
    sentence: str

    def __str__(self) -> str:
        where = self.file if self.shard_id is None else f"shard {self.shard_id}: {self.file}"
        return f"{where}: {self.sentence}"


@dataclass(slots=True)
class ShardFindings:
    """What was read of a shard and found wrong in it; `commit` is None if it cannot be read."""

    shard_id: int
    commit: ShardCommit | None = None
    problems: list[Problem] = field(default_factory=list)
    files: int = 0
    bytes: int = 0

    def add(self, file: str, sentence: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(self.shard_id, file, sentence))


def check_shard(dataset: Dataset, shard_id: int, generation: int, refs: Sequence[ImageRef] | None) -> ShardFindings:
    """Hash every file of a shard again; if all are as committed, check their contents.

    `refs` are the planned images, None if the plan cannot be read. Damage is noted, not raised.
    """
    found = ShardFindings(shard_id)
    key = commit_key(shard_id, generation)
    try:
        commit = found.commit = dataset.read_commit(shard_id, generation)
    except DamageError as error:
        found.add(key, error.trouble)
        return found
    files: dict[str, bytes] = {}
    for name in commit.files:
        try:
            files[name] = dataset.read_file(commit, name, verify=True)
        except DamageError as error:
            found.add(name, error.trouble)
    found.files, found.bytes = len(files), sum(map(len, files.values()))
    if not found.problems:
        try:
            for file, sentence in check_tables(dataset.parse(commit, files), commit.counts, refs):
                found.add(file, sentence)
        except DamageError as error:
            found.add(error.file or key, error.trouble)
        except Exception as error:  # bytes as committed, yet no shard: whoever wrote them was wrong in any way
            found.add(key, f"the files it names do not hold a shard ({type(error).__name__})")
    return found


def check_tables(
    tables: ShardTables, counts: ShardCounts, refs: Sequence[ImageRef] | None
) -> Iterator[tuple[str, str]]:
    """What is wrong with the contents of a shard, as (file, sentence)."""
    images, masks = tables.images, tables.masks
    yield from ((IMAGES, sentence) for sentence in _check_planned(images, refs))
    yield from ((IMAGES, sentence) for sentence in check_images(images, counts))
    troubles = list(check_masks(masks))
    yield from ((MASKS, sentence) for sentence in (*troubles, *check_belonging(images, masks)))
    if not troubles:  # else pycocotools must not see them
        yield from ((MASKS, sentence) for sentence in _check_tightness(masks))
    for name, array in tables.vectors.items():
        yield from ((f"{PROMPTS}/{name}", sentence) for sentence in check_array(array, len(masks)))
    if tables.saliency is not None:
        yield from ((SALIENCY, sentence) for sentence in check_maps(tables.saliency, len(masks)))


def _check_planned(images: pa.Table, refs: Sequence[ImageRef] | None) -> Iterator[str]:
    if refs is not None:
        planned = [(ref.image_id, ref.file_name) for ref in refs]
        if planned != list(zip(images["image_id"].to_pylist(), images["file_name"].to_pylist(), strict=True)):
            yield "its images are not the planned ones, each once and in order"


def _check_tightness(masks: pa.Table) -> Iterator[str]:
    if not len(masks):
        return
    sizes = zip(*(masks[name].to_pylist() for name in ("height", "width", "counts")), strict=True)
    tight_n4 = coco_mask.toBbox([{"size": [h, w], "counts": counts} for h, w, counts in sizes])
    yield from bad_rows("box is not the tight one of the RLE", _box_iou(boxes_of(masks), tight_n4) <= MIN_BOX_IOU)


def _box_iou(a_n4: npt.NDArray[Any], b_n4: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """IoU of XYWH boxes, row by row; 0 where both are empty."""
    near = np.maximum(a_n4[:, :2], b_n4[:, :2])
    far = np.minimum(a_n4[:, :2] + a_n4[:, 2:], b_n4[:, :2] + b_n4[:, 2:])
    inter: npt.NDArray[Any] = np.clip(far - near, 0, None).prod(1)
    union: npt.NDArray[Any] = a_n4[:, 2:].prod(1) + b_n4[:, 2:].prod(1) - inter
    iou: npt.NDArray[Any] = inter / np.maximum(union, 1)
    return iou
