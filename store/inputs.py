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
from ..schemas.manifest import FileEntry
from ..schemas.records import INPUTS_SCHEMA, ImageRef
from .damage import ContentError, DamageError
from .layout import PLAN, inputs_key
from .objects import ObjectStore

FILE_ROWS = 1 << 20  # images per plan file, rounded down to whole shards
_REF_FIELDS = ("image_id", "file_name", "uri", "size_bytes", "width", "height")


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """What was planned, and under which name; nothing counts until a card names it.

    `inputs_sha256` covers ids, names and declared sizes in order, not where the files lie; `files` are the digests of
    the plan's files by name.
    """

    plan: str
    n_images: int
    n_shards: int
    inputs_sha256: str
    files: dict[str, FileEntry]


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
    files: dict[str, FileEntry] = {}
    shard_id = 0
    while data := _next_file(source, shard_id, shard_size, digest, ids):
        key = inputs_key(plan, len(files))
        store.put(key, data)
        store.sync([key])
        files[key.rpartition("/")[2]] = FileEntry(size=len(data), sha256=hashlib.sha256(data).hexdigest())
        shard_id = len(ids)
    if not ids:
        raise UserError("There is no image among the inputs: name a folder or list that holds some.")
    _refuse_duplicates(store, np.concatenate(ids), [inputs_key(plan, index) for index in range(len(files))])
    return PlanSummary(plan, sum(map(len, ids)), shard_id, digest.hexdigest(), files)


class InputsReader:
    """Reads the plan shard by shard: one range of one file each. Safe to share between threads."""

    def __init__(self, store: ObjectStore, plan: str, n_images: int, shard_size: int) -> None:
        self._store = store
        self._plan, self._n_images, self._shard_size = plan, n_images, shard_size
        self._per_file = shards_per_file(shard_size)
        self._footer: tuple[int, pq.FileMetaData] | None = None  # of the last file: shards are mostly read in order

    def read(self, shard_id: int) -> list[ImageRef]:
        """The images of one shard, in order. Raises DamageError if the plan is missing or damaged there."""
        index, group = divmod(shard_id, self._per_file)
        key = inputs_key(self._plan, index)
        try:
            table = self._read_group(index, key, group)
        except UserError:
            raise
        except Exception as error:  # a damaged file can make the parser raise anything
            trouble = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({_first_line(error)})"
            raise DamageError(
                f"{self._store.url}/{key} of shard {shard_id}",
                trouble,
                "restore it from a copy, or make the data set anew",
            ) from error
        return [ImageRef(*row) for row in zip(*(table[name].to_pylist() for name in _REF_FIELDS), strict=True)]

    def _read_group(self, index: int, key: str, group: int) -> pa.Table:
        held = self._footer
        expected = min(self._shard_size, self._n_images - (index * self._per_file + group) * self._shard_size)
        with self._store.open(key) as source:
            about = held[1] if held and held[0] == index else None
            file = pq.ParquetFile(source, metadata=about, page_checksum_verification=True)
            if not file.schema_arrow.equals(INPUTS_SCHEMA):
                raise ContentError("it has other columns than a plan")
            if file.metadata.row_group(group).num_rows != expected:
                raise ContentError("it has other images than the card counts")
            self._footer = (index, file.metadata)
            table = file.read_row_group(group, use_threads=False)
        if len(table) != expected:
            raise ContentError("it has other images than the card counts")
        return table


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def update_digest(digest: "hashlib._Hash", refs: Iterable[ImageRef]) -> None:
    """Add images to the running `inputs_sha256` of a plan."""
    for ref in refs:
        digest.update(repr((ref.image_id, ref.file_name, ref.width, ref.height)).encode("utf-8", "surrogateescape"))


def _next_file(
    source: Iterator[ImageRef], shard_id: int, shard_size: int, digest: "hashlib._Hash", ids: list[np.ndarray]
) -> bytes:
    """The next plan file, nothing if there is no image left; the image ids of each of its shards are added to `ids`."""
    sink = io.BytesIO()
    before = len(ids)
    writer = pq.ParquetWriter(sink, INPUTS_SCHEMA, compression="zstd", use_dictionary=False, write_page_checksum=True)
    with writer:
        while len(ids) - before < shards_per_file(shard_size) and (refs := list(islice(source, shard_size))):
            update_digest(digest, refs)
            columns = {name: [getattr(ref, name) for ref in refs] for name in _REF_FIELDS}
            columns["shard_id"] = [shard_id + len(ids) - before] * len(refs)
            writer.write_table(pa.Table.from_pydict(columns, INPUTS_SCHEMA), row_group_size=shard_size)
            ids.append(np.array(columns["image_id"], np.int64))
    return sink.getvalue() if len(ids) > before else b""


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
