import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saliency_prompt.store.layout import attempt_prefix, commit_key, parse_attempt, parse_commit_key

SHARDS = st.integers(0, 3_000_000)


@settings(deadline=None, max_examples=50)
@given(shard=SHARDS, generation=st.integers(0, 9999))
def test_commit_keys_are_read_back(shard: int, generation: int) -> None:
    key = commit_key(shard, generation)
    assert parse_commit_key(key) == (shard, generation)
    assert re.fullmatch(r"[a-z0-9./]+", key)


@settings(deadline=None, max_examples=50)
@given(shard=SHARDS, name=st.sampled_from(["masks.parquet", "prompts.zarr/seed/c/0/0"]))
def test_attempts_are_read_back(shard: int, name: str) -> None:
    assert parse_attempt(f"{attempt_prefix(shard, 'a' * 32)}/{name}") == (shard, "a" * 32)


@settings(deadline=None, max_examples=50)
@given(shard=SHARDS)
def test_a_shard_and_its_commits_share_a_folder_name(shard: int) -> None:
    assert attempt_prefix(shard, "a").split("/")[1] == commit_key(shard).split("/")[1] == f"{shard // 1000:03d}"


@pytest.mark.parametrize(
    "key",
    [
        "commits/000/0.json",
        "commits/001/000000.json",
        "commits/000/000000.0.json",
        "commits/000/000000.01.json",
        "commits/000/000000.99999.json",
        "commits/000/000000.json.0123.partial",
        "commits/000/000000.json#1",
        "commits/000/000000 (copy).json",
        "commits/000000.json",
        "other/000/000000.json",
    ],
)
def test_no_other_key_is_a_commit(key: str) -> None:
    assert parse_commit_key(key) is None


@pytest.mark.parametrize("key", ["shards/000/000000", "shards/000/000000/file", "shards/x/y/z/file", "commits/0/0/0/0"])
def test_no_other_key_is_a_file_of_an_attempt(key: str) -> None:
    assert parse_attempt(key) is None
