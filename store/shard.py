"""The files of one shard, and the commit that makes them visible.

Promise: a shard is either absent or complete and verified. Any number of workers may compute the same shard at the
same time; exactly one result becomes visible. Files stand under attempt-unique names and never move; the commit is
written last, if absent, and names them with their sizes and digests.
"""

import hashlib
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from ..schemas.errors import UserError
from ..schemas.manifest import FORMAT_VERSION, CommitInfo, FileEntry, ShardCommit, ShardCounts
from ..schemas.records import CORE_COLUMNS, IMAGES_SCHEMA, MASKS_SCHEMA, ImageRecord
from .layout import attempt_prefix, commit_key
from .objects import LostError, ObjectStore

IMAGES, MASKS, PROMPTS, SALIENCY = "images.parquet", "masks.parquet", "prompts.zarr", "saliency.zarr"
ROW_GROUP = 4096  # rows: one image of a shard costs a read of a few hundred kilobytes
VECTOR_CHUNK = 1 << 20  # values per zarr chunk: 2 MB of fp16, the vectors of about 500 masks
WRITES = 3  # tries, if somebody removes the files of an attempt that is being written
MAP_CHUNK = 1 << 17  # 128 kB of bytes: the maps of one image

log = logging.getLogger(__name__)


def build_shard(
    records: Sequence[ImageRecord],
    compression_level: int,
    schema: pa.Schema = MASKS_SCHEMA,
    format_version: int = FORMAT_VERSION,
) -> dict[str, bytes]:
    """The files of a shard by name; a pure function of its arguments, to the byte.

    `schema` is that of the masks, as the card gives it. From format 2 on parquet pages and zarr chunks carry checksums.
    """
    images, masks, vectors, maps = _columns(records, schema)
    pack = _Packing(compression_level, checksums=format_version >= 2)
    files = {
        IMAGES: _parquet(pa.Table.from_pydict(images, IMAGES_SCHEMA), pack, ["status", "reason"]),
        MASKS: _parquet(pa.Table.from_pydict(masks, schema), pack, ["source"]),
    }
    arrays = {name: np.concatenate(parts) for name, parts in vectors.items()}
    assert all(len(array) == len(masks["rank"]) for array in arrays.values()), "row i of every array is mask i"
    files |= _zarr(PROMPTS, arrays, pack, VECTOR_CHUNK)
    if maps:
        assert sum(map(len, maps)) == len(masks["rank"]), "soft maps are stored for all masks or for none"
        flat = np.concatenate([m.reshape(len(m), -1).ravel() for m in maps])
        shapes = np.array([m.shape[1:] for m in maps for _ in range(len(m))], np.int32)
        offsets = np.concatenate([[0], np.cumsum(shapes.prod(1, dtype=np.int64))])
        files |= _zarr(SALIENCY, {"maps": flat, "offsets": offsets, "shapes": shapes}, pack, MAP_CHUNK)
    return files


def file_entries(files: Mapping[str, bytes]) -> dict[str, FileEntry]:
    """Sizes and digests of files, by name in order."""
    return {
        name: FileEntry(size=len(data), sha256=hashlib.sha256(data).hexdigest()) for name, data in sorted(files.items())
    }


def content_hash(entries: Mapping[str, FileEntry]) -> str:
    """One digest over the names and digests of a shard's files."""
    lines = [f"{name} {entry.sha256}\n" for name, entry in sorted(entries.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def commit_shard(
    store: ObjectStore,
    shard_id: int,
    files: Mapping[str, bytes],
    *,
    fingerprint: str,
    counts: ShardCounts,
    info: CommitInfo,
    generation: int = 0,
    format_version: int = FORMAT_VERSION,
) -> ShardCommit:
    """Write the files, check that they arrived, and make them the shard; the commit that counts is returned.

    If another worker committed the shard first, its commit is returned and these files are removed. If writing fails,
    they are removed as far as possible and the error is raised: nothing is visible. They stay for `gc` only if the
    commit itself fails, since it may have arrived although its answer did not.

    A writer that was suspended for longer than the grace of `gc` may find its files gone once they are committed: it
    writes them again, and takes the commit back if they do not stay.
    """
    attempt = uuid4().hex
    prefix = attempt_prefix(shard_id, attempt)
    keys = [f"{prefix}/{name}" for name in files]
    entries = file_entries(files)
    commit = ShardCommit(
        format_version=format_version,
        shard_id=shard_id,
        generation=generation,
        attempt=attempt,
        fingerprint=fingerprint,
        content_hash=content_hash(entries),
        files=entries,
        counts=counts,
        info=info,
    )
    key = commit_key(shard_id, generation)
    try:
        _write(store, shard_id, prefix, files)
    except BaseException:
        _remove(store, keys)
        raise
    if store.put_if_absent(key, commit.to_json()):
        _ensure(store, commit, files)
        return commit
    try:
        winner = ShardCommit.model_validate_json(store.get(key))
    except ValidationError:
        _remove(store, keys)
        raise UserError(
            f"{store.url}/{key} is damaged: delete it, and run `generate` again to compute the shard anew."
        ) from None
    if winner.attempt == attempt:
        _ensure(store, commit, files)
        return winner  # our own write, reported as a conflict by a retried request
    _remove(store, keys)
    if winner.content_hash != commit.content_hash:
        log.warning("shard %d was committed by another worker with different bytes: is its hardware another?", shard_id)
    return winner


def lost_files(store: ObjectStore, commit: ShardCommit) -> list[str]:
    """Which files of a commit are missing or of another size; one listing."""
    prefix = f"{attempt_prefix(commit.shard_id, commit.attempt)}/"
    there = {info.key.removeprefix(prefix): info.size for info in store.list(prefix)}
    return [name for name, entry in commit.files.items() if there.get(name) != entry.size]


def _write(store: ObjectStore, shard_id: int, prefix: str, files: Mapping[str, bytes]) -> None:
    """Write files and look at their sizes; anew if some are removed meanwhile, by a `gc` that takes them for old."""
    for left in reversed(range(WRITES)):
        try:
            for name, data in files.items():
                store.put(f"{prefix}/{name}", data)
                if (size := store.size(f"{prefix}/{name}")) not in (len(data), None):
                    raise UserError(
                        f"{store.url} kept {size} of the {len(data)} bytes written for {name} of shard {shard_id}: "
                        "check the disk or bucket, and run the same command again to resume."
                    )
            store.sync([f"{prefix}/{name}" for name in files])
            return
        except (FileNotFoundError, LostError) as error:
            if not left:
                raise _not_kept(store, shard_id) from error


def _not_kept(store: ObjectStore, shard_id: int) -> UserError:
    return UserError(
        f"{store.url} does not keep the files of shard {shard_id}: let no `gc` run with so short a grace, "
        "and run the same command again to resume."
    )


def _ensure(store: ObjectStore, commit: ShardCommit, files: Mapping[str, bytes]) -> None:
    """Have a new commit name files that are there. Raises UserError, having retracted it, if that cannot be had."""
    lost = lost_files(store, commit)
    if not lost:
        return
    log.warning("shard %d was committed late, when gc had removed its files: writing them again", commit.shard_id)
    try:
        prefix = attempt_prefix(commit.shard_id, commit.attempt)
        _write(store, commit.shard_id, prefix, {name: files[name] for name in lost})
        lost = lost_files(store, commit)
    except BaseException:
        store.delete([commit_key(commit.shard_id, commit.generation)])
        raise
    if lost:
        store.delete([commit_key(commit.shard_id, commit.generation)])
        raise _not_kept(store, commit.shard_id)


def _remove(store: ObjectStore, keys: Sequence[str]) -> None:
    try:
        store.delete(keys)
    except Exception as error:  # the first failure matters; what stays is removed by gc
        log.warning("files of an attempt could not be removed (gc will): %s", error)


def _columns(
    records: Sequence[ImageRecord], schema: pa.Schema
) -> tuple[dict[str, list[Any]], dict[str, list[Any]], dict[str, list[npt.NDArray[Any]]], list[npt.NDArray[np.uint8]]]:
    images: dict[str, list[Any]] = {field.name: [] for field in IMAGES_SCHEMA}
    masks: dict[str, list[Any]] = {field.name: [] for field in schema}
    own = masks.keys() - {field.name for field in CORE_COLUMNS}
    vectors: dict[str, list[npt.NDArray[Any]]] = {}
    maps: list[npt.NDArray[np.uint8]] = []
    first = 0
    for record in records:
        found = record.masks
        n = len(found) if found else 0
        row = {name: getattr(record, name) for name in images if name not in ("n_masks", "first_mask")}
        for name, value in {**row, "n_masks": n, "first_mask": first}.items():
            images[name].append(value)
        first += n
        assert (record.status == "ok") == (n > 0), "an image is ok if and only if it has masks"
        if not found:
            continue
        assert found.extra.keys() == own, "masks have the columns that their producer declares"
        columns = [found.bbox, found.area, found.score, *found.extra.values(), *found.vectors.values()]
        assert all(len(column) == n for column in columns), "columns are aligned"
        assert np.isfinite(found.score).all()
        assert (found.bbox[:, :2] + found.bbox[:, 2:] <= (record.width, record.height)).all(), "boxes are XYWH, inside"
        masks["image_id"] += [record.image_id] * n
        masks["rank"] += range(n)
        masks["counts"] += found.counts
        masks["height"] += [record.height] * n
        masks["width"] += [record.width] * n
        masks["bbox"] += found.bbox.tolist()
        masks["area"] += found.area.tolist()
        masks["score"] += found.score.tolist()
        masks["source"] += [found.source] * n
        for name, column in found.extra.items():
            masks[name] += column.tolist() if isinstance(column, np.ndarray) else column
        for name, array in found.vectors.items():
            vectors.setdefault(name, []).append(array)
        if found.saliency is not None:
            maps.append(found.saliency)
    return images, masks, vectors, maps


@dataclass(frozen=True, slots=True)
class _Packing:
    """How files are packed."""

    level: int
    checksums: bool


def _parquet(table: pa.Table, pack: _Packing, dictionaries: list[str]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        row_group_size=ROW_GROUP,
        compression="zstd",
        compression_level=pack.level,
        use_dictionary=dictionaries,
        write_statistics=["image_id"],
        write_page_checksum=pack.checksums,
    )
    return sink.getvalue()


def _zarr(group: str, arrays: Mapping[str, npt.NDArray[Any]], pack: _Packing, chunk: int) -> dict[str, bytes]:
    """A zarr 3 group: each array written once, whole, as one shard; absent cells would read as NaN, not as zeros."""
    if not arrays:
        return {}
    import zarr  # slow, and those who read tables alone have no use for it
    from zarr.codecs import Crc32cCodec, ZstdCodec
    from zarr.storage import MemoryStore

    zstd = ZstdCodec(level=pack.level)
    buffers: dict[str, Any] = {}
    root = zarr.open_group(MemoryStore(buffers), mode="w", zarr_format=3)
    for name, data in arrays.items():
        rows = max(1, min(len(data), chunk // max(1, int(np.prod(data.shape[1:])))))
        array = root.create_array(
            name,
            shape=data.shape,
            dtype=data.dtype,
            chunks=(rows, *data.shape[1:]),
            shards=(-(-len(data) // rows) * rows, *data.shape[1:]),
            compressors=[zstd, Crc32cCodec()] if pack.checksums else zstd,
            fill_value=float("nan") if data.dtype.kind == "f" else 0,
        )
        array[...] = data
    return {f"{group}/{key}": buffers[key].to_bytes() for key in sorted(buffers)}
