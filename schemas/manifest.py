"""The JSON documents of a data set: card, commit and seal. Frozen, and strict about unknown keys and bounds."""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from .records import COLUMN_TYPES, CORE_COLUMNS, SALIENCY_COLUMNS, columns_of, masks_schema

FORMAT_VERSION = 1  # of saliency data sets, which keep their bytes
FORMATS = (1, 2)  # that can be read; 2 has checksums inside its files and columns of its producer

MAX_SHARDS = 10_000_000  # what is held of each in memory is a few dozen bytes
MAX_SHARD_SIZE = 65_536
MAX_COUNT = 2**50

# Names in a commit become keys and paths: plain words only, so that none leads out of the data set.
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
AttemptName = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
FileName = Annotated[str, Field(pattern=r"^[\w-]+(\.\w+)*(/\w+(\.\w+)*)*$")]


class Document(BaseModel):
    """Base of what is written as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    later: ClassVar[frozenset[str]] = frozenset()  # fields that older programs refuse: written only where they say more

    def to_json(self) -> bytes:
        """UTF-8 JSON, as written."""
        fields = type(self).model_fields
        unsaid = {name for name in self.later if getattr(self, name) == fields[name].get_default()}
        return self.model_dump_json(indent=2, exclude=unsaid).encode()


class ShardCounts(Document):
    """Totals over images and masks; `images` is the sum of the three statuses."""

    images: Count = 0
    ok: Count = 0
    empty: Count = 0
    quarantined: Count = 0
    masks: Count = 0

    def __add__(self, other: "ShardCounts") -> "ShardCounts":
        mine, theirs = self.model_dump(), other.model_dump()
        return ShardCounts(**{name: mine[name] + theirs[name] for name in mine})


class Derivation(Document):
    """How a data set was made from complete ones, by `dataset filter` and the like.

    The command, what it was told, and the root hashes that it started from.
    """

    operation: Annotated[str, Field(pattern=r"^[a-z]+$")]
    options: dict[str, Any] = {}
    parents: Annotated[tuple[Sha256, ...], Field(min_length=1)]


class DatasetCard(Document):
    """`dataset.json`: what the data set was planned as. Written once.

    `producer` made the masks, `mask_columns` are its own columns of masks.parquet (names and types; none means
    saliency's), and `parent` is the root hash of the data set that it was made from, if it was made from one;
    `derivation` says how, if its masks are those of others.
    """

    format_version: int
    created_by: str
    config: dict[str, Any]
    fingerprint: str
    weights_name: str
    weights_sha256: str
    source: str
    n_images: Annotated[int, Field(ge=1, le=MAX_SHARDS * MAX_SHARD_SIZE)]
    n_shards: Annotated[int, Field(ge=1, le=MAX_SHARDS)]
    shard_size: Annotated[int, Field(ge=1, le=MAX_SHARD_SIZE)]
    plan: AttemptName
    inputs_sha256: str
    device: str
    producer: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")] = "saliency"
    parent: Sha256 | None = None
    mask_columns: dict[str, str] = {}
    derivation: Derivation | None = None

    later: ClassVar[frozenset[str]] = frozenset({"producer", "parent", "mask_columns", "derivation"})

    @field_validator("mask_columns")
    @classmethod
    def _known_types(cls, declared: dict[str, str]) -> dict[str, str]:
        taken = {column.name for column in CORE_COLUMNS}
        if bad := [name for name, kind in declared.items() if not name.isidentifier() or kind not in COLUMN_TYPES]:
            raise ValueError(f"the column {bad[0]!r} has no known type")
        if both := taken & declared.keys():
            raise ValueError(f"the column {min(both)} is one of the core")
        return declared

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not (self.n_shards - 1) * self.shard_size < self.n_images <= self.n_shards * self.shard_size:
            raise ValueError("images, shards and the size of a shard do not fit each other")
        return self

    def images_of(self, shard_id: int) -> int:
        """How many images the plan gives to a shard."""
        return min(self.shard_size, self.n_images - shard_id * self.shard_size)

    @property
    def parents(self) -> tuple[str, ...]:
        """Root hashes of the data sets that it was labelled anew or derived from."""
        derived = () if self.derivation is None else self.derivation.parents
        return tuple(dict.fromkeys([*([] if self.parent is None else [self.parent]), *derived]))

    @property
    def masks_schema(self) -> pa.Schema:
        """The columns of its masks."""
        own = self.mask_columns or self.producer != "saliency"
        return masks_schema(columns_of(self.mask_columns) if own else SALIENCY_COLUMNS)


def format_of(producer: str) -> int:
    """The format that new data sets of a producer are written in."""
    return FORMAT_VERSION if producer == "saliency" else FORMATS[-1]


class FileEntry(Document):
    """Size in bytes and hex digest of one file of a shard."""

    size: Count
    sha256: Sha256


class CommitInfo(Document):
    """When, where and by what a shard was computed; no part of any hash."""

    started: Annotated[float, Field(ge=0, le=1e11)]  # seconds since the epoch
    seconds: Annotated[float, Field(ge=0, le=1e10)]
    host: str
    code_version: str


class ShardCommit(Document):
    """`commits/.../N.json`: makes one attempt at a shard the shard. Written last and once.

    `content_hash` covers the files' names and digests: equal data, equal hash, whoever computed them.
    """

    format_version: int
    shard_id: int
    generation: int
    attempt: AttemptName
    fingerprint: str
    content_hash: Sha256
    files: dict[FileName, FileEntry]
    counts: ShardCounts
    info: CommitInfo


class Seal(Document):
    """All shards are committed, and `root_hash` names the data in one string. `sealed.json` is a copy of the newest."""

    format_version: int
    root_hash: str
    fingerprint: str
    n_shards: int
    counts: ShardCounts


class SealEntry(Document):
    """`seals/N.json`: written if absent, the highest number counts. Without a seal the data set is open again.

    `provenance_sha256` is the digest of `plan/.../digests.json`, None in a data set that has none.
    """

    generation: int
    seal: Seal | None
    provenance_sha256: Sha256 | None


class PlanDigests(Document):
    """`plan/<plan>/digests.json`: the digests of card and plan, written before the card."""

    card_sha256: Sha256
    plan_files: dict[FileName, FileEntry]


def fingerprint(
    identity: Mapping[str, Any],
    weights_sha256: str,
    parent: str | None = None,
    derivation: Derivation | None = None,
) -> str:
    """Sha256 over a configuration's identity (`section.identity`), as canonical JSON, and the weights' digest.

    `parent` is the root hash of the data set that was labelled anew or derived from, if there is one.
    """
    whole = {**identity, "weights_sha256": weights_sha256, **({} if parent is None else {"parent": parent})}
    if derivation is not None:
        whole["derivation"] = derivation.model_dump(mode="json")
    canonical = json.dumps(whole, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def describe_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The dotted keys in which two configurations differ, with both values."""
    before, after = _flatten(old), _flatten(new)
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    telling = [key for key in keys if key != "features.weights"] or keys
    return ", ".join(f"{key} was {before.get(key)!r}, now {after.get(key)!r}" for key in telling)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
