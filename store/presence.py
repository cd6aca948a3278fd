"""Whether the files that commits name are there: one listing of a data set."""

import zlib

import numpy as np

from ..schemas.manifest import ShardCommit
from .dataset import Dataset, Generations
from .layout import SHARDS, attempt_prefix, parse_attempt


def incomplete_shards(dataset: Dataset, generations: Generations) -> list[int]:
    """Committed shards that lack a file, or have one of another size. Nothing is read but the commits.

    What is held of a shard is 48 bytes: its attempt, and sums over its files' names and sizes.
    """
    if not (generations >= 0).any():
        return []
    attempts = np.full(len(generations), b"", "S32")
    named, found = np.zeros((2, len(generations)), np.uint64)
    for commit in dataset.commits(generations):
        attempts[commit.shard_id] = commit.attempt.encode()
        named[commit.shard_id] = _sum_of(commit)
    for info in dataset.store.list(SHARDS):
        parsed = parse_attempt(info.key)
        if parsed is not None and parsed[0] < len(attempts) and attempts[parsed[0]] == parsed[1].encode():
            name = info.key.removeprefix(f"{attempt_prefix(*parsed)}/")
            found[parsed[0]] += np.uint64(_mark(name, info.size))
    return [int(shard) for shard in np.flatnonzero((generations >= 0) & (named != found))]


def _sum_of(commit: ShardCommit) -> int:
    return sum(_mark(name, entry.size) for name, entry in commit.files.items())


def _mark(name: str, size: int) -> int:
    """A number that other files or sizes hardly have; sums of them do not overflow 64 bits."""
    return zlib.crc32(f"{name} {size}".encode())
