"""The JSON documents of a data set: card, commit and seal. Frozen, and strict about unknown keys."""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from .records import SALIENCY_COLUMNS, columns_of, masks_schema

FORMAT_VERSION = 1  # of saliency data sets, which keep their bytes
FORMATS = (1, 2)  # that can be read; 2 has checksums inside its files and columns of its producer

# Names in a commit become keys and paths: plain words only, so that none leads out of the data set.
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
AttemptName = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
FileName = Annotated[str, Field(pattern=r"^\w+(\.\w+)*(/\w+(\.\w+)*)*$")]


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

    images: int = 0
    ok: int = 0
    empty: int = 0
    quarantined: int = 0
    masks: int = 0

    def __add__(self, other: "ShardCounts") -> "ShardCounts":
        mine, theirs = self.model_dump(), other.model_dump()
        return ShardCounts(**{name: mine[name] + theirs[name] for name in mine})


class DatasetCard(Document):
    """`dataset.json`: what the data set was planned as. Written once.

    `producer` made the masks, `mask_columns` are its own columns of masks.parquet (names and types; none means
    saliency's), and `parent` is the root hash of the data set that it was made from, if it was made from one.
    """

    format_version: int
    created_by: str
    config: dict[str, Any]
    fingerprint: str
    weights_name: str
    weights_sha256: str
    source: str
    n_images: int
    n_shards: int
    shard_size: int
    plan: str
    inputs_sha256: str
    device: str
    producer: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")] = "saliency"
    parent: Sha256 | None = None
    mask_columns: dict[str, str] = {}

    later: ClassVar[frozenset[str]] = frozenset({"producer", "parent", "mask_columns"})

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

    size: int
    sha256: Sha256


class CommitInfo(Document):
    """When, where and by what a shard was computed; no part of any hash."""

    started: float  # seconds since the epoch
    seconds: float
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
    """`sealed.json`: all shards are committed, and `root_hash` names the data in one string."""

    format_version: int
    root_hash: str
    fingerprint: str
    n_shards: int
    counts: ShardCounts


def fingerprint(identity: Mapping[str, Any], weights_sha256: str, parent: str | None = None) -> str:
    """Sha256 over a configuration's identity (`section.identity`), as canonical JSON, and the weights' digest.

    `parent` is the root hash of the data set that was labelled anew, if there is one.
    """
    whole = {**identity, "weights_sha256": weights_sha256, **({} if parent is None else {"parent": parent})}
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
