"""A writer that sleeps for longer than the grace of `gc`: what it commits is there, or it is not committed."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.store.check import GRACE_SECONDS, gc, verify
from saliency_prompt.store.dataset import Dataset
from saliency_prompt.store.layout import COMMITS, SHARDS, commit_key
from saliency_prompt.store.objects import ObjectStore
from saliency_prompt.store.presence import incomplete_shards

FUTURE = -60


class Sleepy(ObjectStore):
    """Something else happens just before a commit is written, and just after."""

    def __init__(self, inner: ObjectStore, before: Callable[[], object], after: Callable[[], object]) -> None:
        super().__init__(inner.url, inner.backend, inner.local_root())
        self.before, self.after = before, after

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self.before()
        done = super().put_if_absent(key, data)
        self.after()
        return done


def nothing() -> None: ...


def test_the_default_grace_outlasts_a_weekend() -> None:
    assert GRACE_SECONDS >= 3 * 86400


def test_files_that_gc_took_before_the_commit_are_written_again(make: Any, local_store: ObjectStore) -> None:
    dataset = make.dataset(local_store)
    sleepy = Sleepy(local_store, lambda: gc(dataset, grace_seconds=FUTURE), nothing)
    commit = make.commit(dataset, 1, store=sleepy)
    dataset.read_shard(commit)
    assert incomplete_shards(dataset, dataset.generations()) == []


def test_a_commit_whose_files_do_not_stay_is_taken_back(
    make: Any, local_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make.dataset(local_store)

    def take() -> None:
        local_store.delete([info.key for info in local_store.list(SHARDS)])
        monkeypatch.setattr(ObjectStore, "put", lambda *_: None)
        monkeypatch.setattr(ObjectStore, "size", lambda *_: 0)

    with pytest.raises(UserError, match="shard 1"):
        make.commit(dataset, 1, store=Sleepy(local_store, nothing, take))
    assert dataset.generations().tolist() == [-1, -1, -1]


def test_gc_takes_back_a_commit_that_came_while_it_removed_its_files(make: Any, local_store: ObjectStore) -> None:
    dataset = make.dataset(local_store)
    make.commit(dataset, 0)
    pending: list[tuple[str, bytes]] = []

    class Held(ObjectStore):
        """A writer that sleeps at its commit."""

        def put_if_absent(self, key: str, data: bytes) -> bool:
            pending.append((key, data))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make.commit(dataset, 1, store=Held(local_store.url, local_store.backend, local_store.local_root()))

    class Racing(ObjectStore):
        """The writer wakes when the first file is about to be removed, and never looks after its files."""

        def delete(self, keys: Iterable[str]) -> None:
            if pending:
                assert local_store.put_if_absent(*pending.pop())
            super().delete(keys)

    racing = Dataset.of(Racing(local_store.url, local_store.backend, local_store.local_root()))
    gc(racing, grace_seconds=FUTURE)
    assert dataset.generations().tolist() == [0, -1, -1]


def test_files_that_are_gone_are_found_by_a_listing(make: Any, local_store: ObjectStore) -> None:
    dataset = make.complete(local_store)
    newest = make.commit(dataset, 2, generation=1, seed=1)
    prefix = f"{SHARDS}/000/000002/{newest.attempt}"
    data = local_store.get(f"{prefix}/masks.parquet")
    for change in (data[:-1], None):
        local_store.put(f"{prefix}/masks.parquet", change) if change else local_store.delete(
            [f"{prefix}/masks.parquet"]
        )
        assert incomplete_shards(dataset, dataset.generations()) == [2]
    local_store.put(f"{prefix}/masks.parquet", data)
    assert incomplete_shards(dataset, dataset.generations()) == []
    local_store.delete([commit_key(0), commit_key(1), commit_key(2), commit_key(2, 1)])
    assert not list(local_store.list(COMMITS))
    assert incomplete_shards(dataset, dataset.generations()) == []
    assert verify(dataset).problems
