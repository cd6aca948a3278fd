import copy
import dataclasses
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.records import IMAGES_SCHEMA, MASKS_SCHEMA
from saliency_prompt.store.check import gc, verify
from saliency_prompt.store.layout import COMMITS, SHARDS, commit_key
from saliency_prompt.store.objects import ObjectStore
from saliency_prompt.store.shard import build_shard, content_hash, file_entries


def keys(store: ObjectStore, prefix: str) -> list[str]:
    return sorted(info.key for info in store.list(prefix))


@settings(deadline=None, max_examples=20)
@given(count=st.integers(1, 30), seed=st.integers(0, 1000), saliency=st.booleans(), level=st.sampled_from([1, 9]))
def test_records_come_back_as_they_were(make: Any, new_memory_store: Any, **drawn: Any) -> None:
    refs = make.refs(drawn["count"])
    records = make.records(refs, seed=drawn["seed"], saliency=drawn["saliency"])
    dataset = make.dataset(new_memory_store(), drawn["count"], shard_size=30)
    tables = dataset.read_shard(make.commit(dataset, 0, records=records), vectors=True, verify=True)
    assert tables.images.schema.equals(IMAGES_SCHEMA)
    assert tables.masks.schema.equals(MASKS_SCHEMA)
    masked = 0
    for record, image in zip(records, tables.images.to_pylist(), strict=True):
        n = len(record.masks) if record.masks else 0
        assert (image.pop("n_masks"), image.pop("first_mask")) == (n, masked)
        assert image == {name: getattr(record, name) for name in image}
        masks = tables.masks.slice(masked, n)
        rows = slice(masked, masked + n)
        masked += n
        if not record.masks:
            continue
        assert masks["counts"].to_pylist() == list(record.masks.counts)
        assert masks["image_id"].to_pylist() == [record.image_id] * n
        assert masks["rank"].to_pylist() == list(range(n))
        assert masks["height"].to_pylist() == [record.height] * n
        assert masks["width"].to_pylist() == [record.width] * n
        for name in ("area", "score"):
            np.testing.assert_array_equal(masks[name].to_numpy(), getattr(record.masks, name))
        for name, column in record.masks.extra.items():
            np.testing.assert_array_equal(masks[name].to_numpy(), column)
        np.testing.assert_array_equal(np.array(masks["bbox"].to_pylist()), record.masks.bbox)
        for name, vectors in record.masks.vectors.items():
            np.testing.assert_array_equal(tables.vectors[name][rows], vectors)
        if record.masks.saliency is not None:
            stored = tables.saliency
            for row, expected in zip(range(rows.start, rows.stop), record.masks.saliency, strict=True):
                flat = stored["maps"][stored["offsets"][row] : stored["offsets"][row + 1]]
                np.testing.assert_array_equal(flat.reshape(stored["shapes"][row]), expected)
    assert len(tables.masks) == masked


def test_bytes_are_a_function_of_the_records(make: Any) -> None:
    records = make.records(make.refs(40), saliency=True)
    for record in records:  # wide vectors: several chunks in a zarr shard
        if record.masks:
            record.masks.vectors["seed"] = (
                np.random.default_rng(0).normal(size=(len(record.masks), 20_000)).astype("f2")
            )
    files = build_shard(records, 1)
    with ThreadPoolExecutor(4) as pool:
        others = list(pool.map(lambda _: build_shard(copy.deepcopy(records), 1), range(4)))
    assert all(other == files for other in others)
    assert (
        len({content_hash(file_entries(f)) for f in (files, build_shard(records, 19), build_shard(records[1:], 1))})
        == 3
    )


def test_a_shard_without_masks_is_read_like_any_other(make: Any, store: ObjectStore) -> None:
    dataset = make.dataset(store, 1)
    bare = dataclasses.replace(make.records(make.refs(1))[0], status="empty", masks=None)
    tables = dataset.read_shard(make.commit(dataset, 0, records=[bare]), vectors=True)
    assert {name: array.shape for name, array in tables.vectors.items()} == {"seed": (0, 0), "box_mean": (0, 0)}
    assert tables.saliency is None
    assert (len(tables.images), len(tables.masks)) == (1, 0)
    assert verify(dataset).problems == []


def test_one_image_costs_a_small_read(make: Any) -> None:
    file = pq.ParquetFile(io.BytesIO(build_shard(make.records(make.refs(25)), 1)["masks.parquet"]))
    column = file.metadata.row_group(0).column(0)
    assert (column.path_in_schema, column.is_stats_set) == ("image_id", True)
    assert file.metadata.row_group(0).column(2).is_stats_set is False


@pytest.mark.parametrize(
    "damage",
    [
        {"score": np.float32([np.nan])},
        {"area": np.int64([])},
        {"bbox": np.float32([[0, 0, 1000, 1]])},
        {"vectors": {"seed": np.zeros((2, 8), np.float16)}},
    ],
)
def test_impossible_masks_do_not_get_in(make: Any, damage: dict[str, Any]) -> None:
    record = next(r for r in make.records(make.refs(30)) if r.masks and len(r.masks) == 1)
    with pytest.raises(AssertionError):
        build_shard([dataclasses.replace(record, masks=dataclasses.replace(record.masks, **damage))], 1)


def test_sixteen_workers_make_one_shard(make: Any, store: ObjectStore, caplog: pytest.LogCaptureFixture) -> None:
    dataset = make.dataset(store)
    with ThreadPoolExecutor(16) as pool:
        commits = list(pool.map(lambda _: make.commit(dataset, 1), range(16)))
    assert len({commit.to_json() for commit in commits}) == 1
    assert len(keys(store, COMMITS)) == 1
    assert keys(store, SHARDS) == [f"shards/000/000001/{commits[0].attempt}/{name}" for name in commits[0].files]
    dataset.read_shard(commits[0], vectors=True, verify=True)
    assert "hardware" not in caplog.text


def test_a_loser_with_other_bytes_is_heard(
    make: Any, local_store: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = make.dataset(local_store)
    first = make.commit(dataset, 1)
    assert make.commit(dataset, 1, seed=1) == first
    assert "hardware" in caplog.text


class Failing(ObjectStore):
    """Fails the n-th operation that changes something; `late` carries it out before."""

    def __init__(self, inner: ObjectStore, n: int, error: BaseException, *, late: bool) -> None:
        super().__init__(inner.url, inner.backend, inner.local_root())
        self.left = n
        self.error = error
        self.late = late

    def _step(self, act: Callable[[], Any]) -> Any:
        self.left -= 1
        if self.left < 0:
            return act()
        if self.left == 0:
            if self.late:
                act()
            raise self.error
        return act()

    def put(self, key: str, data: bytes) -> None:
        self._step(lambda: super(Failing, self).put(key, data))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return bool(self._step(lambda: super(Failing, self).put_if_absent(key, data)))

    def sync(self, keys: Any) -> None:
        self._step(lambda: super(Failing, self).sync(keys))


@pytest.mark.parametrize("error", [UserError("the disk is full: free some space."), KeyboardInterrupt()])
@pytest.mark.parametrize("late", [False, True])
def test_a_failure_at_any_step_leaves_all_or_nothing(
    make: Any, local_store: ObjectStore, error: BaseException, late: bool
) -> None:
    dataset = make.dataset(local_store, 10)
    files = build_shard(make.records(make.refs(10)), 1)
    n_steps = len(files) + 2  # every file, the sync, the commit
    for n in range(1, n_steps + 1):
        with pytest.raises(type(error)):
            make.commit(dataset, 0, store=Failing(local_store, n, error, late=late))
        if n < n_steps:
            assert (keys(local_store, SHARDS), keys(local_store, COMMITS)) == ([], [])
    visible = list(dataset.commits())
    assert len(visible) == late  # the answer to the commit was lost, not the commit
    for commit in visible:
        dataset.read_shard(commit, vectors=True, verify=True)
    gc(dataset, grace_seconds=-60)
    assert len(keys(local_store, SHARDS)) == len(files) * late
    make.commit(dataset, 0)
    assert verify(dataset).problems == []


def test_a_store_that_loses_bytes_is_noticed(make: Any, local_store: ObjectStore, monkeypatch: Any) -> None:
    dataset = make.dataset(local_store)
    put = ObjectStore.put
    monkeypatch.setattr(ObjectStore, "put", lambda self, key, data: put(self, key, data[:-1]))
    with pytest.raises(UserError, match="check the disk"):
        make.commit(dataset, 0)
    assert (keys(local_store, SHARDS), keys(local_store, COMMITS)) == ([], [])


def test_a_damaged_commit_in_the_way_is_named(make: Any, local_store: ObjectStore) -> None:
    dataset = make.dataset(local_store)
    local_store.put(commit_key(1), b"{}")
    with pytest.raises(UserError, match=r"000001\.json is damaged: delete it"):
        make.commit(dataset, 1)
    assert keys(local_store, SHARDS) == []
