"""The plan: which image is in which shard. Written once, streaming; one row group per shard, to be read alone."""

import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..schemas.errors import UserError
from ..schemas.records import INPUTS_SCHEMA, ImageRef
from .layout import PLAN, inputs_key
from .objects import ObjectStore

FILE_ROWS = 1 << 20  # images per plan file, rounded down to whole shards
_REF_FIELDS = ("image_id", "file_name", "uri", "size_bytes", "width", "height")


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """What was planned, and under which name; nothing counts until a card names it.

    `inputs_sha256` covers ids, names and declared sizes in order, not where the files lie.
    """

    plan: str
    n_images: int
    n_shards: int
    inputs_sha256: str


def shards_per_file(shard_size: int) -> int:
    """Row groups in each plan file but the last."""
    return max(1, FILE_ROWS // shard_size)


def write_inputs(store: ObjectStore, refs: Iterable[ImageRef], shard_size: int) -> PlanSummary:
    """Write the plan. Memory does not grow with it, but for eight bytes an image that find duplicate ids.

    Raises UserError if two images have one id, naming both, or if there is no image; nothing is left behind then.
    """
    plan = uuid4().hex
    try:
        return _write(store, refs, shard_size, plan)
    except BaseException:
        discard_inputs(store, plan)
        raise


def discard_inputs(store: ObjectStore, plan: str) -> None:
    """Remove the files of a plan that no card names."""
    store.delete([info.key for info in store.list(f"{PLAN}/{plan}")])


def _write(store: ObjectStore, refs: Iterable[ImageRef], shard_size: int, plan: str) -> PlanSummary:
    source = iter(refs)
    digest = hashlib.sha256()
    ids: list[np.ndarray] = []
    files = shard_id = 0
    while group := _write_file(store, source, inputs_key(plan, files), shard_id, shard_size, digest):
        ids += group
        shard_id += len(group)
        files += 1
    if not ids:
        raise UserError("There is no image among the inputs: name a folder or list that holds some.")
    _refuse_duplicates(store, np.concatenate(ids), [inputs_key(plan, index) for index in range(files)])
    return PlanSummary(plan, sum(map(len, ids)), shard_id, digest.hexdigest())


class InputsReader:
    """Reads the plan shard by shard: one range of one file each. Safe to share between threads."""

    def __init__(self, store: ObjectStore, plan: str, shard_size: int) -> None:
        self._store = store
        self._plan = plan
        self._per_file = shards_per_file(shard_size)
        self._footer: tuple[int, pq.FileMetaData] | None = None  # of the last file: shards are mostly read in order

    def read(self, shard_id: int) -> list[ImageRef]:
        """The images of one shard, in order."""
        index, group = divmod(shard_id, self._per_file)
        held = self._footer
        with self._store.open(inputs_key(self._plan, index)) as source:
            file = pq.ParquetFile(source, metadata=held[1] if held and held[0] == index else None)
            self._footer = (index, file.metadata)
            table = file.read_row_group(group, use_threads=False)
        return [ImageRef(*row) for row in zip(*(table[name].to_pylist() for name in _REF_FIELDS), strict=True)]


def update_digest(digest: "hashlib._Hash", refs: Iterable[ImageRef]) -> None:
    """Add images to the running `inputs_sha256` of a plan."""
    for ref in refs:
        digest.update(repr((ref.image_id, ref.file_name, ref.width, ref.height)).encode("utf-8", "surrogateescape"))


def _write_file(
    store: ObjectStore, source: Iterator[ImageRef], key: str, shard_id: int, shard_size: int, digest: "hashlib._Hash"
) -> list[np.ndarray]:
    """Write the next plan file; the image ids of each of its shards."""
    sink = io.BytesIO()
    ids: list[np.ndarray] = []
    writer = pq.ParquetWriter(sink, INPUTS_SCHEMA, compression="zstd", use_dictionary=False)
    with writer:
        while len(ids) < shards_per_file(shard_size) and (refs := list(islice(source, shard_size))):
            update_digest(digest, refs)
            columns = {name: [getattr(ref, name) for ref in refs] for name in _REF_FIELDS}
            columns["shard_id"] = [shard_id + len(ids)] * len(refs)
            writer.write_table(pa.Table.from_pydict(columns, INPUTS_SCHEMA), row_group_size=shard_size)
            ids.append(np.array(columns["image_id"], np.int64))
    if ids:
        store.put(key, sink.getvalue())
        store.sync([key])
    return ids


def _refuse_duplicates(store: ObjectStore, ids: np.ndarray, keys: Iterable[str]) -> None:
    ids.sort()
    twice = ids[:-1][ids[1:] == ids[:-1]]
    if not len(twice):
        return
    names: list[str] = []
    for key in keys:
        with store.open(key) as source:
            table = pq.ParquetFile(source).read(["image_id", "file_name"], use_threads=False)
        hit = np.flatnonzero(table["image_id"].to_numpy() == twice[0])
        names += table["file_name"].take(pa.array(hit)).to_pylist()
    raise UserError(
        f"{names[0]} and {names[1]} have the same image id {twice[0]} ({len(np.unique(twice))} such ids in all): "
        "give every image its own id, or rename one of them."
    )
