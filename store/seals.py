"""The seal of a data set: put-if-absent under numbers that grow, so that no late sealer undoes a newer seal.

`seals/N.json` with the highest N counts; one without a seal says that the data set is open again. `sealed.json` is a
copy of it for people and for older programs. A data set of an older program has `sealed.json` alone, which counts then.
"""

import hashlib
from collections.abc import Callable
from typing import TypeVar

from pydantic import ValidationError

from ..schemas.manifest import DatasetCard, Document, Seal, SealEntry, ShardCommit, ShardCounts
from .damage import DamageError
from .layout import SEAL, SEALS, parse_seal_key, seal_key
from .objects import ObjectStore

Parsed = TypeVar("Parsed", bound=Document)


class Sum:
    """What a seal says, added up over commits in the order of shards."""

    def __init__(self) -> None:
        self.counts = ShardCounts()
        self.n_shards = 0
        self._root = hashlib.sha256()

    def add(self, commit: ShardCommit) -> None:
        """The next commit."""
        self._root.update(bytes.fromhex(commit.content_hash))
        self.counts += commit.counts
        self.n_shards += 1

    def seal(self, card: DatasetCard) -> Seal:
        """The seal of a data set that consists of these commits."""
        return Seal(
            format_version=card.format_version,
            root_hash=self._root.hexdigest(),
            fingerprint=card.fingerprint,
            n_shards=self.n_shards,
            counts=self.counts,
        )


def newest_entry(store: ObjectStore) -> SealEntry | None:
    """What the highest number says; None if there is none. Raises DamageError if it cannot be read."""
    numbers = [parse_seal_key(info.key) for info in store.list(SEALS)]
    newest = max((number for number in numbers if number is not None), default=None)
    if newest is None:
        return None
    entry = _parse(store, seal_key(newest), SealEntry)
    if entry is None or entry.generation != newest:
        raise _damaged(store, seal_key(newest))
    return entry


def read_copy(store: ObjectStore) -> Seal | None:
    """What `sealed.json` says. Raises DamageError if it cannot be read."""
    return _parse(store, SEAL, Seal)


def read_entry(store: ObjectStore) -> SealEntry | None:
    """What counts; of an older program's seal under the number -1. None if the data set was never sealed."""
    entry = newest_entry(store)
    if entry is None and (seal := read_copy(store)) is not None:
        return SealEntry(generation=-1, seal=seal, provenance_sha256=None)
    return entry


def write_seal(store: ObjectStore, compute: Callable[[], tuple[Seal, str | None]]) -> Seal:
    """Write the seal that `compute` gives with the digest of card and plan, unless it is the one that counts already.

    `compute` is called again whenever somebody else seals or opens the data set meanwhile.
    """
    while True:
        before = newest_entry(store)
        seal, provenance = compute()
        if before is None:
            same = provenance is None and _copy_or_none(store) == seal
        else:
            same = (before.seal, before.provenance_sha256) == (seal, provenance)
        if same or _put(store, before, seal, provenance):
            publish_copy(store)
            return seal


def write_opening(store: ObjectStore) -> None:
    """Say that the data set is open, before its shards are superseded."""
    while True:
        before = newest_entry(store)
        if (before is not None and before.seal is None) or _put(store, before, None, None):
            publish_copy(store)
            return


def publish_copy(store: ObjectStore) -> None:
    """Have `sealed.json` say what counts; looks again afterwards, since another may have been at it."""
    entry = newest_entry(store)
    while entry is not None:
        if entry.seal is None:
            store.delete([SEAL])
        elif _copy_or_none(store) != entry.seal:
            store.put(SEAL, entry.seal.to_json())
            store.sync([SEAL])
        written, entry = entry, newest_entry(store)
        if entry == written:
            return


def _put(store: ObjectStore, before: SealEntry | None, seal: Seal | None, provenance: str | None) -> bool:
    generation = 0 if before is None else before.generation + 1
    entry = SealEntry(generation=generation, seal=seal, provenance_sha256=provenance)
    return store.put_if_absent(seal_key(generation), entry.to_json())


def _copy_or_none(store: ObjectStore) -> Seal | None:
    try:
        return read_copy(store)
    except DamageError:
        return None


def _parse(store: ObjectStore, key: str, kind: type[Parsed]) -> Parsed | None:
    try:
        return kind.model_validate_json(store.get(key))
    except FileNotFoundError:
        return None
    except ValidationError:
        raise _damaged(store, key) from None


def _damaged(store: ObjectStore, key: str) -> DamageError:
    return DamageError(f"{store.url}/{key}", "is damaged", "delete it and run `generate` again")
