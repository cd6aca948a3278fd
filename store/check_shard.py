"""What must hold within one shard: files as committed, rows as planned, masks as their RLE says."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pycocotools import mask as coco_mask

from ..schemas.manifest import ShardCommit, ShardCounts
from ..schemas.records import IMAGES_SCHEMA, MASKS_SCHEMA, ImageRef
from .dataset import DamageError, Dataset, ShardTables
from .layout import commit_key
from .shard import IMAGES, MASKS, PROMPTS, SALIENCY, content_hash

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
    if content_hash(commit.files) != commit.content_hash:
        found.add(key, "its content hash is not that of the files it names")
    files: dict[str, bytes] = {}
    for name in commit.files:
        try:
            files[name] = dataset.read_file(commit, name, verify=True)
        except DamageError as error:
            found.add(name, error.trouble)
    found.files, found.bytes = len(files), sum(map(len, files.values()))
    if not found.problems:
        try:
            for file, sentence in check_tables(dataset.tables(files), commit.counts, refs, dataset.card.masks_schema):
                found.add(file, sentence)
        except Exception as error:  # bytes as committed, yet no shard: whoever wrote them was wrong in any way
            found.add(key, f"the files it names do not hold a shard ({type(error).__name__})")
    return found


def check_tables(
    tables: ShardTables, counts: ShardCounts, refs: Sequence[ImageRef] | None, schema: pa.Schema = MASKS_SCHEMA
) -> Iterator[tuple[str, str]]:
    """What is wrong with the contents of a shard, as (file, sentence)."""
    images, masks = tables.images, tables.masks
    foreign = [
        name
        for name, table, schema in ((IMAGES, images, IMAGES_SCHEMA), (MASKS, masks, schema))
        if not table.schema.equals(schema)
    ]
    if foreign:
        yield from ((name, "its columns are not those of the format") for name in foreign)
        return
    yield from ((IMAGES, sentence) for sentence in _check_images(images, counts, refs))
    yield from ((MASKS, sentence) for sentence in _check_masks(images, masks))
    for name, array in tables.vectors.items():
        if len(array) != len(masks) or not np.isfinite(array).all():
            yield f"{PROMPTS}/{name}", "it does not hold a finite vector for every mask"
    if tables.saliency is not None:
        maps, offsets, shapes = (tables.saliency[name] for name in ("maps", "offsets", "shapes"))
        areas = shapes.prod(1, dtype=np.int64)
        if len(shapes) != len(masks) or (offsets != np.append(0, np.cumsum(areas))).any() or len(maps) != areas.sum():
            yield SALIENCY, "its offsets and shapes do not fit its maps or masks"


def _check_images(images: pa.Table, counts: ShardCounts, refs: Sequence[ImageRef] | None) -> Iterator[str]:
    if refs is not None:
        planned = [(ref.image_id, ref.file_name) for ref in refs]
        if planned != list(zip(images["image_id"].to_pylist(), images["file_name"].to_pylist(), strict=True)):
            yield "its images are not the planned ones, each once and in order"
    status = np.array(images["status"].to_pylist(), object)
    n_masks = images["n_masks"].to_numpy()
    by_status = {name: int((status == name).sum()) for name in ("ok", "empty", "quarantined")}
    if ShardCounts(images=len(images), masks=int(n_masks.sum()), **by_status) != counts:
        yield "it does not hold what the commit counts"
    yield from _rows("masks and status `ok` do not go together", (n_masks > 0) != (status == "ok"))
    reasons = images["reason"].is_valid().to_numpy()
    yield from _rows("reason and status `quarantined` do not go together", reasons != (status == "quarantined"))


def _check_masks(images: pa.Table, masks: pa.Table) -> Iterator[str]:
    n_masks, first = images["n_masks"].to_numpy(), images["first_mask"].to_numpy()
    if len(masks) != n_masks.sum() or (first != np.cumsum(n_masks) - n_masks).any():
        yield "its rows are not where the images' `first_mask` and `n_masks` say"
        return
    if not len(masks):
        return
    for name in ("image_id", "width", "height"):
        of_image = np.repeat(images[name].to_numpy(), n_masks)
        yield from _rows(f"{name} is not that of the image", masks[name].to_numpy() != of_image)
    rank = masks["rank"].to_numpy()
    yield from _rows("rank is wrong", rank != np.arange(len(masks)) - np.repeat(first, n_masks))
    score = masks["score"].to_numpy()
    scores = [score, masks["score_raw"].to_numpy()] if "score_raw" in masks.column_names else [score]
    yield from _rows("score is not finite", ~np.isfinite(scores).all(0))
    yield from _rows("score is above that of a better rank", (np.diff(score, prepend=np.inf) > 0) & (rank > 0))
    width, height = masks["width"].to_numpy(), masks["height"].to_numpy()
    box_n4 = np.array(masks["bbox"].to_pylist(), np.float64)
    far_n2 = box_n4[:, :2] + box_n4[:, 2:]
    outside = (box_n4[:, :2] < 0).any(1) | (far_n2[:, 0] > width) | (far_n2[:, 1] > height)
    yield from _rows("box is not XYWH inside the image", outside)
    rles = [
        {"size": [h, w], "counts": counts}
        for h, w, counts in zip(height.tolist(), width.tolist(), masks["counts"].to_pylist(), strict=True)
    ]
    yield from _rows("area is not that of the RLE", masks["area"].to_numpy() != coco_mask.area(rles))
    loose = _box_iou(box_n4, coco_mask.toBbox(rles)) <= MIN_BOX_IOU
    yield from _rows("box is not the tight one of the RLE", loose)


def _rows(sentence: str, bad: npt.ArrayLike) -> Iterator[str]:
    """The sentence, with how often and where first, if any row is bad."""
    rows = np.flatnonzero(bad)
    if len(rows):
        yield f"{sentence} in {len(rows)} rows, the first being {rows[0]}"


def _box_iou(a_n4: npt.NDArray[Any], b_n4: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """IoU of XYWH boxes, row by row; 0 where both are empty."""
    near = np.maximum(a_n4[:, :2], b_n4[:, :2])
    far = np.minimum(a_n4[:, :2] + a_n4[:, 2:], b_n4[:, :2] + b_n4[:, 2:])
    inter: npt.NDArray[Any] = np.clip(far - near, 0, None).prod(1)
    union: npt.NDArray[Any] = a_n4[:, 2:].prod(1) + b_n4[:, 2:].prod(1) - inter
    iou: npt.NDArray[Any] = inter / np.maximum(union, 1)
    return iou
