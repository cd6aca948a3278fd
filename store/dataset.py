"""A data set as its readers and workers see it: what no commit names does not exist."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import ValidationError

from ..schemas.errors import UserError
from ..schemas.manifest import FORMATS, DatasetCard, Seal, SealEntry, ShardCommit, ShardCounts
from ..schemas.records import IMAGES_SCHEMA, ImageRef
from .check_rows import check_belonging, check_images, check_masks
from .damage import ContentError, DamageError
from .inputs import InputsReader
from .layout import CARD, COMMITS, SEALS, attempt_prefix, commit_key, parse_commit_key
from .objects import ObjectStore, open_store
from .provenance import check_card
from .seals import Sum, read_entry, write_opening, write_seal
from .shard import IMAGES, MASKS, PROMPTS, SALIENCY, content_hash
from .tables import MAX_ROWS, check_array, check_maps, read_table, read_zarr

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
    """An existing data set at a local path or bucket URL. Safe to share between threads.

    With `check`, every file is hashed when this process reads it for the first time. `provenance` is the digest of
    card and plan that a seal must name, None in data sets of older programs.
    """

    def __init__(
        self, store: ObjectStore, card: DatasetCard, provenance: str | None = None, *, check: bool = True
    ) -> None:
        self.store = store
        self.card = card
        self.provenance = provenance
        self._check = check
        self._checked: set[str] = set()
        self._inputs = InputsReader(store, card.plan, card.n_images, card.shard_size)

    @classmethod
    def open(cls, url: str, *, check: bool = True) -> "Dataset":
        """Read the card. Raises UserError if there is none, or one of another format version, or an edited one."""
        return cls.of(open_store(url, create=False), check=check)

    @classmethod
    def of(cls, store: ObjectStore, *, check: bool = True) -> "Dataset":
        """As `open`, for a store that is open."""
        try:
            data = store.get(CARD)
        except FileNotFoundError:
            raise UserError(
                f"{store.url} is not a data set (it has no {CARD}): check the path, or make one with `generate`."
            ) from None
        version = _format_version(data)
        if type(version) is int and version not in FORMATS:
            raise UserError(
                f"{store.url}/{CARD} has format version {version}, this program reads "
                f"{' and '.join(map(str, FORMATS))}: use the version of saliency-prompt that made it."
            )
        try:
            card = DatasetCard.model_validate_json(data)
        except ValidationError:
            what = f"{store.url}/{CARD}"
            raise DamageError(what, "is damaged", "restore it from a copy, or make the data set anew") from None
        return cls(store, card, check_card(store, data, card), check=check)

    @property
    def url(self) -> str:
        """Where it is."""
        return self.store.url

    def read_inputs(self, shard_id: int) -> list[ImageRef]:
        """The planned images of one shard."""
        return self._inputs.read(shard_id)

    def refs_of(self, commit: ShardCommit, images: pa.Table) -> list[ImageRef]:
        """Where the images of a shard are, row by row. Raises DamageError if they are not the planned ones."""
        refs = self.read_inputs(commit.shard_id)
        named = zip(images["image_id"].to_pylist(), images["file_name"].to_pylist(), strict=True)
        if [(ref.image_id, ref.file_name) for ref in refs] != list(named):
            raise self._damaged_file(commit, IMAGES, "has other images than were planned")
        return refs

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

    def checked_commits(self, generations: Generations | None = None) -> Iterator[ShardCommit]:
        """As `commits`, of a data set that is not sealed; of a sealed one all that was sealed and nothing else.

        Raises DamageError if card, seal and commits do not agree: if one is missing at once, else after the last.
        """
        entry = read_entry(self.store)
        if generations is None:
            generations = self.generations()
        seal = None if entry is None else entry.seal
        if seal is not None and (missing := np.flatnonzero(generations < 0)).size:
            raise DamageError(
                f"{self.url}/{commit_key(int(missing[0]))}",
                f"is missing, with {missing.size} commits of {len(generations)}, although the data set is sealed",
                "run `generate` again to compute the shards anew",
            )
        total = Sum()
        for commit in self.commits(generations):
            total.add(commit)
            yield commit
        if entry is not None and seal is not None and (trouble := self.disagreement(entry, total)):
            raise DamageError(
                f"{self.url}/{SEALS}", trouble, "run `generate` again, when nothing else is at work on it"
            )

    def disagreement(self, entry: SealEntry, total: Sum) -> str | None:
        """What is wrong with a seal, where so many commits add up to `total`."""
        expected = total.seal(self.card)
        if entry.seal != expected:
            names = [name for name in Seal.model_fields if getattr(entry.seal, name) != getattr(expected, name)]
            return f"belongs to other data ({', '.join(names)} of the seal are not those of the commits)"
        if entry.provenance_sha256 != self.provenance and entry.generation >= 0:
            return "belongs to another card or plan"
        return None

    def read_shard(self, commit: ShardCommit, *, vectors: bool = True, verify: bool = False) -> ShardTables:
        """The tables of a committed shard; with `verify`, every byte read is checked against its digest once more.

        Raises DamageError if a file is missing, not as committed, or holds what the format has no room for.
        """
        wanted = [name for name in commit.files if vectors or not name.startswith((f"{PROMPTS}/", f"{SALIENCY}/"))]
        files = {name: self.read_file(commit, name, verify=verify) for name in wanted}
        return self.tables(commit, files, vectors=vectors)

    def tables(self, commit: ShardCommit, files: Mapping[str, bytes], *, vectors: bool = True) -> ShardTables:
        """The tables in the files of a shard, checked row by row when this process first sees them."""
        tables = self.parse(commit, files, vectors=vectors)
        rows = len(tables.masks)
        self._check_images(commit, tables.images)
        self._check_masks(commit, tables.masks)
        self._once(commit, MASKS, "belonging", partial(check_belonging, tables.images, tables.masks))
        for name, array in tables.vectors.items():
            self._once(commit, f"{PROMPTS}/{name}", "rows", partial(check_array, array, rows))
        if tables.saliency is not None:
            self._once(commit, SALIENCY, "rows", partial(check_maps, tables.saliency, rows))
        return tables

    def parse(self, commit: ShardCommit, files: Mapping[str, bytes], *, vectors: bool = True) -> ShardTables:
        """As `tables`, in bounds but with rows as they may be."""
        prompts = self.card.config.get("prompts")
        # A shard without masks does not know how wide its vectors would be.
        named = prompts.items() if vectors and isinstance(prompts, dict) and not commit.counts.masks else ()
        with self._reading(commit, IMAGES):
            images = read_table(files[IMAGES], IMAGES_SCHEMA, commit.counts.images)
        with self._reading(commit, MASKS):
            masks = read_table(files[MASKS], self.card.masks_schema, commit.counts.masks)
        with self._reading(commit, PROMPTS):
            stored = read_zarr(files, PROMPTS)
        with self._reading(commit, SALIENCY):
            saliency = read_zarr(files, SALIENCY)
        none = {name: np.empty((0, 0), np.float16) for name, wanted in named if wanted}
        return ShardTables(images, masks, none | stored, saliency or None)

    def read_images(self, commit: ShardCommit) -> pa.Table:
        """The images of a committed shard. Raises as `read_shard`."""
        data = self.read_file(commit, IMAGES)
        with self._reading(commit, IMAGES):
            images = read_table(data, IMAGES_SCHEMA, commit.counts.images)
        self._check_images(commit, images)
        return images

    def read_masks(self, commit: ShardCommit) -> pa.Table:
        """The masks of a committed shard, without their vectors. Raises as `read_shard`."""
        data = self.read_file(commit, MASKS)
        with self._reading(commit, MASKS):
            masks = read_table(data, self.card.masks_schema, commit.counts.masks)
        self._check_masks(commit, masks)
        return masks

    def read_file(self, commit: ShardCommit, name: str, *, verify: bool = False) -> bytes:
        """One file of a shard. Raises DamageError if it is missing, of another size, or has other bytes.

        Bytes are hashed at the first reading, unless the data set was opened without `check`, and with `verify`.
        """
        entry = commit.files[name]
        try:
            data = self.store.get(f"{attempt_prefix(commit.shard_id, commit.attempt)}/{name}")
        except FileNotFoundError:
            raise self._damaged_file(commit, name, "is missing") from None
        if len(data) != entry.size:
            raise self._damaged_file(commit, name, f"has {len(data)} bytes instead of {entry.size}")
        key = f"{commit.attempt}/{name}"
        if verify or (self._check and key not in self._checked):
            if hashlib.sha256(data).hexdigest() != entry.sha256:
                raise self._damaged_file(commit, name, "has other contents than were committed")
            self._checked.add(key)
        return data

    @property
    def sealed(self) -> Seal | None:
        """The seal, None while the data set is not complete."""
        entry = read_entry(self.store)
        return None if entry is None else entry.seal

    def compute_seal(self, generations: Generations | None = None) -> Seal:
        """The seal that belongs to the committed shards, all of which must be there; `generations` as for `commits`."""
        total = Sum()
        for commit in self.commits(generations):
            total.add(commit)
        assert total.n_shards == self.card.n_shards, "only a complete data set has a seal"
        return total.seal(self.card)

    def seal(self) -> Seal:
        """Write the seal; several processes may do so at once, and a late one does not undo what a newer one wrote."""
        return write_seal(self.store, lambda: (self.compute_seal(), self.provenance))

    def unseal(self) -> None:
        """Take the seal back, before shards are superseded."""
        write_opening(self.store)

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
        if content_hash(commit.files) != commit.content_hash:
            raise DamageError(f"{self.url}/{key}", "has a content hash that is not that of the files it names", anew)
        known = commit.format_version == self.card.format_version and {IMAGES, MASKS} <= commit.files.keys()
        if not known or commit.counts.images != self.card.images_of(shard_id) or commit.counts.masks > MAX_ROWS:
            raise DamageError(f"{self.url}/{key}", f"is none of a shard that {CARD} states", anew)
        if commit.fingerprint != self.card.fingerprint:
            raise DamageError(f"{self.url}/{key}", f"was computed with another configuration than {CARD} states", anew)
        return commit

    def _check_images(self, commit: ShardCommit, images: pa.Table) -> None:
        self._once(commit, IMAGES, "rows", partial(check_images, images, commit.counts))

    def _check_masks(self, commit: ShardCommit, masks: pa.Table) -> None:
        self._once(commit, MASKS, "rows", partial(check_masks, masks))

    def _once(self, commit: ShardCommit, name: str, what: str, check: Callable[[], Iterator[str]]) -> None:
        """Raise DamageError for the first sentence of a check, unless this process has seen it pass."""
        key = f"{commit.attempt}/{name}#{what}"
        if key in self._checked:
            return
        with self._reading(commit, name):
            for sentence in check():
                raise ContentError(sentence)
        self._checked.add(key)

    @contextmanager
    def _reading(self, commit: ShardCommit, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # what is damaged, or was made to look so, can make a parser raise anything
            told = str(error) if isinstance(error, ContentError) else f"cannot be read ({type(error).__name__})"
            raise self._damaged_file(commit, name, told) from error

    def _damaged_file(self, commit: ShardCommit, name: str, trouble: str) -> DamageError:
        key = commit_key(commit.shard_id, commit.generation)
        advice = f"run `saliency-prompt verify`, delete {key}, and run `generate` again to compute the shard anew"
        return DamageError(f"{name} of shard {commit.shard_id} in {self.url}", trouble, advice, name)


def _format_version(data: bytes) -> Any:
    import json

    try:
        return json.loads(data).get("format_version")
    except (ValueError, AttributeError, RecursionError):
        return None
