"""Images drawn from a data set for looking at, with their masks."""

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...schemas.manifest import ShardCommit
from ...schemas.records import ImageRef
from ...store.damage import DamageError
from ...store.dataset import Dataset, ShardTables
from ...store.shard import PROMPTS

SHARDS = 40  # at most, since a whole shard is read for one image of it


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """One image: where it is, its row, its rows of the masks table, and soft maps [h, w] uint8 if stored."""

    ref: ImageRef
    row: dict[str, Any]
    masks: pa.Table
    soft: list[npt.NDArray[np.uint8]] | None


def sample_images(dataset: Dataset, count: int, seed: int = 0) -> list[Sampled]:
    """At most `count` images of at most SHARDS shards, drawn by `seed`, in the data set's order."""
    generations = dataset.generations()
    rng = np.random.default_rng(seed)
    present = np.flatnonzero(generations >= 0)
    chosen = np.sort(rng.choice(present, min(SHARDS, count, len(present)), replace=False)).tolist()
    found: list[Sampled] = []
    for place, shard in enumerate(chosen):
        try:
            commit = dataset.read_commit(shard, int(generations[shard]))
            tables = _tables(dataset, commit)
        except DamageError:
            continue
        wanted = -(-(count - len(found)) // (len(chosen) - place))
        rows = np.sort(rng.permutation(len(tables.images))[:wanted])
        with suppress(DamageError):
            found += list(_sampled(dataset, commit, tables, rows.tolist()))
    return found


def find_images(dataset: Dataset, names: Collection[str]) -> dict[str, Sampled]:
    """The images of these file names. Reads the list of images of every shard until all are found."""
    missing, found = set(names), dict[str, Sampled]()
    generations = dataset.generations()
    for shard in np.flatnonzero(generations >= 0).tolist():
        if not missing:
            break
        try:
            commit = dataset.read_commit(shard, int(generations[shard]))
            listed = dataset.read_images(commit)["file_name"].to_pylist()
            rows = [row for row, name in enumerate(listed) if name in missing]
            if rows:
                here = read_rows(dataset, commit, rows)
                found |= {one.row["file_name"]: one for one in here}
                missing -= found.keys()
        except DamageError:
            continue
    return found


def read_rows(dataset: Dataset, commit: ShardCommit, rows: list[int]) -> Iterator[Sampled]:
    """Images of one shard. Raises DamageError."""
    return _sampled(dataset, commit, _tables(dataset, commit), rows)


def _tables(dataset: Dataset, commit: ShardCommit) -> ShardTables:
    wanted = [name for name in commit.files if not name.startswith(f"{PROMPTS}/")]
    return dataset.tables(commit, {name: dataset.read_file(commit, name) for name in wanted}, vectors=False)


def _sampled(dataset: Dataset, commit: ShardCommit, tables: ShardTables, rows: list[int]) -> Iterator[Sampled]:
    refs = dataset.refs_of(commit, tables.images)
    for number, row in zip(rows, tables.images.take(pa.array(rows, pa.int64())).to_pylist(), strict=True):
        first, n = row["first_mask"], row["n_masks"]
        soft = None if tables.saliency is None else _soft(tables.saliency, first, n)
        yield Sampled(refs[number], row, tables.masks.slice(first, n), soft)


def _soft(saliency: dict[str, npt.NDArray[Any]], first: int, n: int) -> list[npt.NDArray[np.uint8]]:
    maps, offsets, shapes = saliency["maps"], saliency["offsets"], saliency["shapes"]
    return [maps[offsets[i] : offsets[i + 1]].reshape(shapes[i]) for i in range(first, first + n)]
