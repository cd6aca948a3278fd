"""The JSON documents of a data set: card, commit and seal. Frozen, and strict about unknown keys."""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

FORMAT_VERSION = 1

# Names in a commit become keys and paths: plain words only, so that none leads out of the data set.
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
AttemptName = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
FileName = Annotated[str, Field(pattern=r"^\w+(\.\w+)*(/\w+(\.\w+)*)*$")]


class Document(BaseModel):
    """Base of what is written as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_json(self) -> bytes:
        """UTF-8 JSON, as written."""
        return self.model_dump_json(indent=2).encode()


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
    """`dataset.json`: what the data set was planned as. Written once."""

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
