"""A data set as a COCO annotation file."""

import json
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa

from ..schemas.errors import UserError
from .dataset import Dataset, Generations
from .objects import explain
from .seals import Sum

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written; `quarantined` images are left out."""

    images: int
    annotations: int
    quarantined: int


def export_coco(dataset: Dataset, path: str) -> ExportReport:
    """Write all committed masks as one COCO json: one category `object` with id 1, annotation ids from 1.

    Images without masks are listed. Memory does not grow with the data set. The file appears when it is complete.
    Raises UserError if it cannot be written or a shard is damaged.
    """
    if "://" in path:
        raise UserError(f"{path} is a URL: name a local file, and copy it there afterwards.")
    generations = dataset.generations()  # the same in every pass, whatever is committed meanwhile
    missing = int((generations < 0).sum())
    if missing:
        log.warning(
            "%d of %d shards are not computed yet: their images are not in %s", missing, dataset.card.n_shards, path
        )
    total = Sum()
    for commit in dataset.checked_commits(generations):
        total.add(commit)
    root_hash = None if missing else total.seal(dataset.card).root_hash
    target = Path(path)
    partial = target.with_name(f"{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("w", encoding="ascii") as out:
                info = {"description": "Pseudo-labels", "root_hash": root_hash}
                out.write(f'{{"info": {json.dumps(info)},\n"licenses": [],\n"images": [')
                images = _write_list(out, _images(dataset, generations))
                out.write(
                    '],\n"categories": [{"id": 1, "name": "object", "supercategory": "object"}],\n"annotations": ['
                )
                annotations = _write_list(out, _annotations(dataset, generations))
                out.write("]}\n")
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise explain(error, str(target)) from error
    return ExportReport(images, annotations, total.counts.quarantined)


def _write_list(out: TextIO, rows: Iterable[dict[str, Any]]) -> int:
    written = 0
    for row in rows:
        out.write(",\n" if written else "\n")
        out.write(json.dumps(row))
        written += 1
    return written


def _images(dataset: Dataset, generations: Generations) -> Iterator[dict[str, Any]]:
    for commit in dataset.commits(generations):
        for row in dataset.read_images(commit).to_pylist():
            if row["status"] != "quarantined":
                yield {"id": row["image_id"], **{name: row[name] for name in ("file_name", "width", "height")}}


def _annotations(dataset: Dataset, generations: Generations) -> Iterator[dict[str, Any]]:
    number = 0  # 0 itself would read as "unmatched" to pycocotools
    for commit in dataset.commits(generations):
        masks = dataset.read_masks(commit)
        for row, score in zip(masks.to_pylist(), _shortest(masks["score"]), strict=True):
            number += 1
            yield {
                "id": number,
                "image_id": row["image_id"],
                "category_id": 1,
                "segmentation": {"size": [row["height"], row["width"]], "counts": row["counts"].decode("ascii")},
                "bbox": row["bbox"],
                "area": row["area"],
                "iscrowd": 0,
                "score": score,
            }


def _shortest(column: pa.ChunkedArray) -> list[float]:
    """Numbers that print with the digits fp32 has, not with those of its fp64 neighbour."""
    values: list[float] = column.to_numpy().astype(str).astype(np.float64).tolist()
    return values
