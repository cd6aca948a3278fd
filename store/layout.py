"""Names of everything in a data set. Keys use `/` and plain characters, so that every store takes them as they are."""

import re

CARD = "dataset.json"
SEAL = "sealed.json"  # a copy of the newest of SEALS
SEALS = "seals"
PLAN = "plan"
SHARDS = "shards"
COMMITS = "commits"

_SEAL = re.compile(r"seals/(\d{6,9})\.json")
_COMMIT = re.compile(r"commits/\d+/(\d+)(?:\.(\d{1,4}))?\.json")  # generations fit into int16
_ATTEMPT = re.compile(r"shards/\d+/(\d+)/([^/]+)/.+")


def inputs_key(plan: str, index: int) -> str:
    """One parquet file of the plan that the card names; others are remains of a lost race to plan."""
    return f"{PLAN}/{plan}/inputs-{index:05d}.parquet"


def digests_key(plan: str) -> str:
    """The digests of the card and of the files of a plan."""
    return f"{PLAN}/{plan}/digests.json"


def seal_key(generation: int) -> str:
    """One seal, or its end; the highest generation counts."""
    return f"{SEALS}/{generation:06d}.json"


def parse_seal_key(key: str) -> int | None:
    """The generation of a seal's key; None for any other key."""
    match = _SEAL.fullmatch(key)
    return int(match[1]) if match and seal_key(int(match[1])) == key else None


def attempt_prefix(shard_id: int, attempt: str) -> str:
    """Folder of one attempt at a shard; its files never move."""
    return f"{SHARDS}/{shard_id // 1000:03d}/{shard_id:06d}/{attempt}"


def commit_key(shard_id: int, generation: int = 0) -> str:
    """The commit of a shard; generations after the first supersede the ones before."""
    suffix = f".{generation}" if generation else ""
    return f"{COMMITS}/{shard_id // 1000:03d}/{shard_id:06d}{suffix}.json"


def parse_commit_key(key: str) -> tuple[int, int] | None:
    """Shard id and generation of a commit's key; None for any other key."""
    match = _COMMIT.fullmatch(key)
    if match is None:
        return None
    parsed = int(match[1]), int(match[2] or 0)
    return parsed if commit_key(*parsed) == key else None  # a stray copy such as commits/000/0.json is no commit


def parse_attempt(key: str) -> tuple[int, str] | None:
    """Shard id and attempt that a shard's file belongs to; None for any other key."""
    match = _ATTEMPT.fullmatch(key)
    return (int(match[1]), match[2]) if match else None
