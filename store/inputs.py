"""The plan: which image is in which shard. Written once, streaming; one row group per shard, to be read alone."""

import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..schemas.errors import UserError
from ..schemas.records import INPUTS_SCHEMA, ImageRef
from .layout import inputs_key
from .objects import ObjectStore

FILE_ROWS = 1 << 20  # images per plan file, rounded down to whole shards


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """What was planned; `inputs_sha256` covers ids, names and declared sizes in order, not where the files lie."""

    n_images: int
    n_shards: int
    inputs_sha256: str


def shards_per_file(shard_size: int) -> int:
    """Row groups in each plan file but the last."""
    return max(1, FILE_ROWS // shard_size)


def write_inputs(store: ObjectStore, refs: Iterable[ImageRef], shard_size: int) -> PlanSummary:
    """Write the plan. Memory does not grow with it, but for eight bytes an image that find duplicate ids.

    Raises UserError if two images have one id, naming both, or if there is no image.
    """
    source = iter(refs)
    digest = hashlib.sha256()
    ids: list[np.ndarray] = []
    files = shard_id = 0
    while group := _write_file(store, source, files, shard_id, shard_size, digest):
        ids += group
        shard_id += len(group)
        files += 1
    if not ids:
        raise UserError("There is no image among the inputs: name a folder or list that holds some.")
    _refuse_duplicates(store, np.concatenate(ids), files)
    return PlanSummary(sum(map(len, ids)), shard_id, digest.hexdigest())


def read_inputs(store: ObjectStore, shard_id: int, shard_size: int) -> list[ImageRef]:
    """The images of one shard, in order."""
    per_file = shards_per_file(shard_size)
    file = pq.ParquetFile(_open(store, inputs_key(shard_id // per_file)))
    return _refs(file.read_row_group(shard_id % per_file))


def _refs(table: pa.Table) -> list[ImageRef]:
    names = ("image_id", "file_name", "uri", "size_bytes", "width", "height")
    return [ImageRef(*row) for row in zip(*(table[name].to_pylist() for name in names), strict=True)]


def _open(store: ObjectStore, key: str) -> "str | io.BytesIO":
    """Local plan files are read in place; those of a bucket are fetched."""
    root = store.local_root()
    return str(root / key) if root is not None else io.BytesIO(store.get(key))


def _write_file(
    store: ObjectStore, source: Iterator[ImageRef], index: int, shard_id: int, shard_size: int, digest: "hashlib._Hash"
) -> list[np.ndarray]:
    """Write the next plan file; the image ids of each of its shards."""
    sink = io.BytesIO()
    ids: list[np.ndarray] = []
    writer = pq.ParquetWriter(sink, INPUTS_SCHEMA, compression="zstd", use_dictionary=False)
    with writer:
        while len(ids) < shards_per_file(shard_size) and (refs := list(islice(source, shard_size))):
            columns = {
                name: [getattr(ref, name) for ref in refs]
                for name in ("image_id", "file_name", "uri", "size_bytes", "width", "height")
            }
            for row in zip(columns["image_id"], columns["file_name"], columns["width"], columns["height"], strict=True):
                digest.update(repr(row).encode("utf-8", "surrogateescape"))
            columns["shard_id"] = [shard_id + len(ids)] * len(refs)
            writer.write_table(pa.Table.from_pydict(columns, INPUTS_SCHEMA), row_group_size=shard_size)
            ids.append(np.array(columns["image_id"], np.int64))
    if ids:
        key = inputs_key(index)
        store.put(key, sink.getvalue())
        store.sync([key])
    return ids


def _refuse_duplicates(store: ObjectStore, ids: np.ndarray, files: int) -> None:
    ids.sort()
    twice = ids[:-1][ids[1:] == ids[:-1]]
    if not len(twice):
        return
    names: list[str] = []
    for index in range(files):
        table = pq.read_table(_open(store, inputs_key(index)), columns=["image_id", "file_name"])
        hit = np.flatnonzero(table["image_id"].to_numpy() == twice[0])
        names += table["file_name"].take(pa.array(hit)).to_pylist()
    raise UserError(
        f"{names[0]} and {names[1]} have the same image id {twice[0]} ({len(np.unique(twice))} such ids in all): "
        "give every image its own id, or rename one of them."
    )
