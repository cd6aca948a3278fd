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

from .dataset import Dataset
from .objects import explain

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
    missing = dataset.card.n_shards - int(dataset.committed().sum())
    if missing:
        log.warning(
            "%d of %d shards are not computed yet: their images are not in %s", missing, dataset.card.n_shards, path
        )
    target = Path(path)
    partial = target.with_name(f"{target.name}.partial")
    seal = dataset.sealed
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("w", encoding="ascii") as out:
                info = {"description": "Pseudo-labels", "root_hash": seal.root_hash if seal else None}
                out.write(f'{{"info": {json.dumps(info)},\n"licenses": [],\n"images": [')
                images = _write_list(out, _images(dataset))
                out.write(
                    '],\n"categories": [{"id": 1, "name": "object", "supercategory": "object"}],\n"annotations": ['
                )
                annotations = _write_list(out, _annotations(dataset))
                out.write("]}\n")
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise explain(error, str(target)) from error
    return ExportReport(images, annotations, dataset.counts().quarantined)


def _write_list(out: TextIO, rows: Iterable[dict[str, Any]]) -> int:
    written = 0
    for row in rows:
        out.write(",\n" if written else "\n")
        out.write(json.dumps(row))
        written += 1
    return written


def _images(dataset: Dataset) -> Iterator[dict[str, Any]]:
    for commit in dataset.commits():
        for row in dataset.read_images(commit).to_pylist():
            if row["status"] != "quarantined":
                yield {"id": row["image_id"], **{name: row[name] for name in ("file_name", "width", "height")}}


def _annotations(dataset: Dataset) -> Iterator[dict[str, Any]]:
    number = 0  # 0 itself would read as "unmatched" to pycocotools
    for commit in dataset.commits():
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
