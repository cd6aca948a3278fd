import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.store.damage import DamageError
from saliency_prompt.store.dataset import Dataset
from saliency_prompt.store.layout import CARD, SEAL, attempt_prefix, commit_key, digests_key, seal_key
from saliency_prompt.store.objects import ObjectStore, open_store


def edit(store: ObjectStore, key: str, **changes: Any) -> None:
    store.put(key, json.dumps({**json.loads(store.get(key)), **changes}).encode())


def test_commits_come_in_order_and_the_newest_counts(make: Any, store: ObjectStore) -> None:
    dataset = make.dataset(store, 45)
    for shard_id in (4, 0, 2):
        make.commit(dataset, shard_id)
    newest = make.commit(dataset, 2, generation=1, seed=1)
    store.put("commits/000/000001.json.0123.partial", b"{")
    assert dataset.generations().tolist() == [0, -1, 1, -1, 0]
    assert dataset.committed().tolist() == [True, False, True, False, True]
    commits = list(dataset.commits())
    assert [(c.shard_id, c.generation) for c in commits] == [(0, 0), (2, 1), (4, 0)]
    assert commits[1] == newest
    assert dataset.counts().images == 25


def test_shards_beyond_a_thousand_have_folders_of_their_own(make: Any, local_store: ObjectStore) -> None:
    dataset = make.dataset(local_store, 1205, shard_size=1)
    for shard_id in (1203, 999):
        make.commit(dataset, shard_id)
    assert np.flatnonzero(dataset.committed()).tolist() == [999, 1203]
    assert local_store.exists("commits/001/001203.json")


def test_the_seal_names_the_data_and_nothing_else(make: Any, new_memory_store: Callable[[], ObjectStore]) -> None:
    one = make.complete(new_memory_store())
    two = make.dataset(new_memory_store())
    assert two.sealed is None
    for shard_id in (2, 1, 0):
        make.commit(two, shard_id)
    seal = two.seal()
    assert seal == one.sealed == two.sealed
    assert seal.n_shards == 3
    assert seal.counts.images == 25
    two.unseal()
    assert two.sealed is None
    make.commit(two, 1, generation=1, seed=1)
    assert two.seal().root_hash != seal.root_hash


def test_an_incomplete_data_set_has_no_seal(make: Any, local_store: ObjectStore) -> None:
    dataset = make.dataset(local_store)
    make.commit(dataset, 0)
    with pytest.raises(AssertionError):
        dataset.seal()


def test_what_is_no_data_set_is_explained(make: Any, store: ObjectStore) -> None:
    with pytest.raises(UserError, match="is not a data set"):
        Dataset.of(store)
    dataset = make.dataset(store)
    edit(store, CARD, format_version=7, novelty=1)
    with pytest.raises(UserError, match="format version 7, this program reads 1 and 2"):
        Dataset.of(store)
    edit(store, CARD, format_version=1)
    with pytest.raises(UserError, match="damaged"):
        Dataset.of(store)
    store.put(CARD, dataset.card.to_json()[:-9])
    with pytest.raises(UserError, match="damaged"):
        Dataset.of(store)
    edited = dataset.card.model_copy(update={"device": "another"})
    store.put(CARD, edited.to_json())
    with pytest.raises(DamageError, match=r"dataset.json has other contents than were written"):
        Dataset.of(store)
    store.delete([digests_key(edited.plan)])  # as an older program wrote it
    assert Dataset.of(store).card == edited


@pytest.mark.parametrize("store", ["local", "s3"], indirect=True)
def test_a_data_set_is_found_by_path_and_by_bucket(make: Any, store: ObjectStore) -> None:
    sealed = make.complete(store).sealed
    opened = Dataset.open(store.url + "/")
    assert opened.sealed == sealed
    again = make.dataset(open_store(store.url)).card
    assert opened.card == again.model_copy(update={"plan": opened.card.plan})


@pytest.mark.parametrize("name", ["images.parquet", "masks.parquet", "prompts.zarr/seed/c/0/0"])
def test_a_missing_or_short_file_names_shard_and_remedy(make: Any, store: ObjectStore, name: str) -> None:
    dataset = make.dataset(store)
    commit = make.commit(dataset, 1)
    key = f"{attempt_prefix(1, commit.attempt)}/{name}"
    data = store.get(key)
    for change, trouble in ((data[:-1], "bytes instead of"), (None, "is missing")):
        store.put(key, change) if change else store.delete([key])
        with pytest.raises(UserError, match=f"shard 1 .* {trouble}.*verify"):
            dataset.read_shard(commit, vectors=True)
    store.put(key, bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(DamageError, match="other contents"):
        dataset.read_file(commit, name, verify=True)


def test_vectors_are_read_on_request_only(make: Any, local_store: ObjectStore) -> None:
    dataset = make.dataset(local_store)
    commit = make.commit(dataset, 0, saliency=True)
    local_store.delete(f"{attempt_prefix(0, commit.attempt)}/{n}" for n in commit.files if ".zarr" in n)
    tables = dataset.read_shard(commit, vectors=False)
    assert tables.vectors == {}
    assert dataset.read_images(commit) == tables.images
    assert dataset.read_masks(commit) == tables.masks


@pytest.mark.parametrize(
    ("changes", "trouble"),
    [
        ({"fingerprint": "0" * 64}, "another configuration"),
        ({"shard_id": 2}, "damaged or gone"),
        ({"attempt": "../../../../etc"}, "damaged or gone"),
        ({"files": {"../secret": {"size": 1, "sha256": "0" * 64}}}, "damaged or gone"),
        ({"surprise": 1}, "damaged or gone"),
    ],
)
def test_a_commit_that_cannot_be_is_refused(
    make: Any, local_store: ObjectStore, changes: dict[str, Any], trouble: str
) -> None:
    dataset = make.dataset(local_store)
    make.commit(dataset, 1)
    edit(local_store, commit_key(1), **changes)
    with pytest.raises(DamageError, match=f"000001.json .*{trouble}.*delete it"):
        list(dataset.commits())


def test_a_damaged_seal_is_explained(make: Any, local_store: ObjectStore) -> None:
    dataset = make.complete(local_store)
    local_store.put(SEAL, b"{")
    assert dataset.sealed is not None  # it is a copy, and written anew
    dataset.seal()
    assert json.loads(local_store.get(SEAL))["n_shards"] == 3
    local_store.put(seal_key(0), b"{")
    with pytest.raises(DamageError, match=r"seals/000000.json is damaged: delete it"):
        _ = dataset.sealed
