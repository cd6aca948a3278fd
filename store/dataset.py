"""A data set as its readers and workers see it: what no commit names does not exist."""

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from pydantic import ValidationError
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from ..schemas.errors import UserError
from ..schemas.manifest import FORMATS, DatasetCard, Seal, ShardCommit, ShardCounts
from ..schemas.records import ImageRef
from .inputs import InputsReader
from .layout import CARD, COMMITS, SEAL, attempt_prefix, commit_key, parse_commit_key
from .objects import ObjectStore, open_store
from .shard import IMAGES, MASKS, PROMPTS, SALIENCY

Generations = npt.NDArray[np.int16]  # of the newest commit of every shard, -1 where there is none: [n_shards]

WINDOW = 256  # commits read ahead: hides the latency of a bucket, bounds memory


@dataclass(frozen=True, slots=True, eq=False)
class ShardTables:
    """The contents of a shard. Row i of every vector array belongs to row i of `masks`.

    `saliency`, if stored: flat bytes `maps`, `offsets` [n+1] and grid `shapes` [n, 2].
    """

    images: pa.Table
    masks: pa.Table
    vectors: dict[str, npt.NDArray[np.float16]]
    saliency: dict[str, npt.NDArray[Any]] | None


class Dataset:
    """An existing data set at a local path or bucket URL. Safe to share between threads."""

    def __init__(self, store: ObjectStore, card: DatasetCard) -> None:
        self.store = store
        self.card = card
        self._inputs = InputsReader(store, card.plan, card.shard_size)

    @classmethod
    def open(cls, url: str) -> "Dataset":
        """Read the card. Raises UserError if there is none, or one of another format version."""
        return cls.of(open_store(url, create=False))

    @classmethod
    def of(cls, store: ObjectStore) -> "Dataset":
        """As `open`, for a store that is open."""
        try:
            data = store.get(CARD)
        except FileNotFoundError:
            raise UserError(
                f"{store.url} is not a data set (it has no {CARD}): check the path, or make one with `generate`."
            ) from None
        try:
            return cls(store, DatasetCard.model_validate_json(data))
        except ValidationError:
            version = _format_version(data)
            if version not in (None, *FORMATS):
                raise UserError(
                    f"{store.url} has format version {version}, this program reads {' and '.join(map(str, FORMATS))}: "
                    "use the version of saliency-prompt that made it."
                ) from None
            raise UserError(
                f"{store.url}/{CARD} is damaged: restore it from a copy, or make the data set anew."
            ) from None

    @property
    def url(self) -> str:
        """Where it is."""
        return self.store.url

    def read_inputs(self, shard_id: int) -> list[ImageRef]:
        """The planned images of one shard."""
        return self._inputs.read(shard_id)

    def generations(self) -> Generations:
        """The newest generation of every shard's commit, -1 where there is none: [n_shards]. One listing."""
        newest = np.full(self.card.n_shards, -1, np.int16)
        for info in self.store.list(COMMITS):
            parsed = parse_commit_key(info.key)
            if parsed is not None and parsed[0] < len(newest):
                newest[parsed[0]] = max(newest[parsed[0]], parsed[1])
        return newest

    def committed(self) -> npt.NDArray[np.bool_]:
        """Which shards are there: [n_shards]."""
        return self.generations() >= 0

    def commits(self, generations: Generations | None = None) -> Iterator[ShardCommit]:
        """The commits that count, in the order of shards; memory does not grow with their number.

        Pass what `generations` gave to see the same ones again, whatever was committed since.
        """
        if generations is None:
            generations = self.generations()
        present = np.flatnonzero(generations >= 0)
        with ThreadPoolExecutor(16, "commits") as pool:
            for start in range(0, len(present), WINDOW):
                window = present[start : start + WINDOW]
                yield from pool.map(self.read_commit, window.tolist(), generations[window].tolist())

    def counts(self) -> ShardCounts:
        """Totals over the committed shards."""
        return sum((commit.counts for commit in self.commits()), ShardCounts())

    def read_shard(self, commit: ShardCommit, *, vectors: bool = True, verify: bool = False) -> ShardTables:
        """The tables of a committed shard; with `verify`, every byte read is checked against its digest.

        Raises DamageError if a file is missing or not as committed.
        """
        wanted = [name for name in commit.files if vectors or not name.startswith((f"{PROMPTS}/", f"{SALIENCY}/"))]
        return self.tables({name: self.read_file(commit, name, verify=verify) for name in wanted}, vectors=vectors)

    def tables(self, files: Mapping[str, bytes], *, vectors: bool = True) -> ShardTables:
        """The tables in the files of a shard."""
        saliency = read_zarr(files, SALIENCY)
        # A shard without masks does not know how wide its vectors would be.
        prompts = self.card.config.get("prompts", {})
        none = {name: np.empty((0, 0), np.float16) for name, stored in prompts.items() if stored}
        return ShardTables(
            images=read_table(files[IMAGES]),
            masks=read_table(files[MASKS]),
            vectors=(none if vectors else {}) | read_zarr(files, PROMPTS),
            saliency=saliency or None,
        )

    def read_images(self, commit: ShardCommit) -> pa.Table:
        """The images of a committed shard. Raises as `read_shard`."""
        return read_table(self.read_file(commit, IMAGES))

    def read_masks(self, commit: ShardCommit) -> pa.Table:
        """The masks of a committed shard, without their vectors. Raises as `read_shard`."""
        return read_table(self.read_file(commit, MASKS))

    def read_file(self, commit: ShardCommit, name: str, *, verify: bool = False) -> bytes:
        """One file of a shard. Raises DamageError if it is missing, of another size, or (verify) has other bytes."""
        entry = commit.files[name]
        try:
            data = self.store.get(f"{attempt_prefix(commit.shard_id, commit.attempt)}/{name}")
        except FileNotFoundError:
            raise self._damaged_file(commit, name, "is missing") from None
        if len(data) != entry.size:
            raise self._damaged_file(commit, name, f"has {len(data)} bytes instead of {entry.size}")
        if verify and hashlib.sha256(data).hexdigest() != entry.sha256:
            raise self._damaged_file(commit, name, "has other contents than were committed")
        return data

    @property
    def sealed(self) -> Seal | None:
        """The seal, None while the data set is not complete."""
        try:
            return Seal.model_validate_json(self.store.get(SEAL))
        except FileNotFoundError:
            return None
        except ValidationError:
            raise DamageError(f"{self.url}/{SEAL}", "is damaged", "delete it and run `generate` again") from None

    def compute_seal(self, generations: Generations | None = None) -> Seal:
        """The seal that belongs to the committed shards, all of which must be there; `generations` as for `commits`."""
        root, counts, n_shards = hashlib.sha256(), ShardCounts(), 0
        for commit in self.commits(generations):
            root.update(bytes.fromhex(commit.content_hash))
            counts += commit.counts
            n_shards += 1
        assert n_shards == self.card.n_shards, "only a complete data set has a seal"
        return Seal(
            format_version=self.card.format_version,
            root_hash=root.hexdigest(),
            fingerprint=self.card.fingerprint,
            n_shards=n_shards,
            counts=counts,
        )

    def seal(self) -> Seal:
        """Write the seal; several processes may do so at once, since they write the same."""
        seal = self.compute_seal()
        self.store.put(SEAL, seal.to_json())
        self.store.sync([SEAL])
        return seal

    def unseal(self) -> None:
        """Remove the seal, before shards are superseded."""
        self.store.delete([SEAL])

    def read_commit(self, shard_id: int, generation: int) -> ShardCommit:
        """One commit. Raises DamageError if it is missing, damaged, or of another configuration."""
        key = commit_key(shard_id, generation)
        try:
            commit: ShardCommit | None = ShardCommit.model_validate_json(self.store.get(key))
        except (ValidationError, FileNotFoundError):
            commit = None
        anew = "delete it, and run `generate` again to compute the shard anew"
        if commit is None or (commit.shard_id, commit.generation) != (shard_id, generation):
            raise DamageError(f"{self.url}/{key}", "is damaged or gone", anew)
        if commit.fingerprint != self.card.fingerprint:
            raise DamageError(f"{self.url}/{key}", f"was computed with another configuration than {CARD} states", anew)
        return commit

    def _damaged_file(self, commit: ShardCommit, name: str, trouble: str) -> "DamageError":
        key = commit_key(commit.shard_id, commit.generation)
        advice = f"run `saliency-prompt verify`, delete {key}, and run `generate` again to compute the shard anew"
        return DamageError(f"{name} of shard {commit.shard_id} in {self.url}", trouble, advice)


class DamageError(UserError):
    """Something in the data set is missing or not as it was written; `trouble` says what is wrong with it."""

    def __init__(self, what: str, trouble: str, advice: str) -> None:
        super().__init__(f"{what} {trouble}: {advice}.")
        self.trouble = trouble
        self._parts = (what, trouble, advice)

    def __reduce__(self) -> tuple[type["DamageError"], tuple[str, str, str]]:
        return DamageError, self._parts  # it travels from workers to the driver


def _format_version(data: bytes) -> Any:
    import json

    try:
        return json.loads(data).get("format_version")
    except (ValueError, AttributeError):
        return None


def read_table(data: bytes) -> pa.Table:
    """A whole parquet file, read by this thread alone.

    Arrow's own threads may still hold bytes of Python when the interpreter ends, which then aborts.
    """
    return pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)


def read_zarr(files: Mapping[str, bytes], group: str) -> dict[str, npt.NDArray[Any]]:
    """All arrays of a zarr group whose files were read; sizes were checked, so that no file is silently absent."""
    prefix = f"{group}/"
    make = default_buffer_prototype().buffer.from_bytes
    held: dict[str, Any] = {
        name.removeprefix(prefix): make(data) for name, data in files.items() if name.startswith(prefix)
    }
    if not held:
        return {}
    root = zarr.open_group(MemoryStore(held), mode="r", zarr_format=3)
    return {name: np.asarray(array[...]) for name, array in root.arrays()}
