"""The digests of card and plan, which no commit covers: `plan/<plan>/digests.json`, and the seal covers that."""

import hashlib
from collections.abc import Iterator, Mapping

from pydantic import ValidationError

from ..schemas.manifest import DatasetCard, FileEntry, PlanDigests
from .damage import DamageError
from .layout import CARD, PLAN, digests_key
from .objects import ObjectStore

_ANEW = "restore it from a copy, or make the data set anew"


def publish_card(store: ObjectStore, card: DatasetCard, plan_files: Mapping[str, FileEntry]) -> bool:
    """Write the digests and then the card, if absent; whether this call wrote it."""
    data = card.to_json()
    digests = PlanDigests(card_sha256=hashlib.sha256(data).hexdigest(), plan_files=dict(plan_files))
    key = digests_key(card.plan)
    store.put(key, digests.to_json())
    store.sync([key])
    return store.put_if_absent(CARD, data)


def read_digests(store: ObjectStore, card: DatasetCard) -> tuple[PlanDigests, str] | None:
    """The digests with their own digest; None in a data set of an older program. Raises DamageError."""
    key = digests_key(card.plan)
    try:
        data = store.get(key)
        return PlanDigests.model_validate_json(data), hashlib.sha256(data).hexdigest()
    except FileNotFoundError:
        if card.format_version >= 2:
            raise DamageError(f"{store.url}/{key}", "is missing", _ANEW) from None
        return None
    except ValidationError:
        raise DamageError(f"{store.url}/{key}", "is damaged", _ANEW) from None


def check_card(store: ObjectStore, data: bytes, card: DatasetCard) -> str | None:
    """Raise DamageError if the card is not as it was written; the digest that a seal must name."""
    found = read_digests(store, card)
    if found is None:
        return None
    digests, provenance = found
    if hashlib.sha256(data).hexdigest() != digests.card_sha256:
        raise DamageError(f"{store.url}/{CARD}", "has other contents than were written", _ANEW)
    return provenance


def check_plan(store: ObjectStore, card: DatasetCard) -> Iterator[tuple[str, str]]:
    """Hash the plan again: (key, what is wrong) of every file that is not as it was written."""
    found = read_digests(store, card)
    for name, entry in sorted(found[0].plan_files.items()) if found else ():
        key = f"{PLAN}/{card.plan}/{name}"
        try:
            same = hashlib.sha256(store.get(key)).hexdigest() == entry.sha256
        except FileNotFoundError:
            yield key, "is missing"
        else:
            if not same:
                yield key, "has other contents than were written"
