import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.manifest import CommitInfo, ShardCounts
from saliency_prompt.store.check import gc, verify
from saliency_prompt.store.check_shard import check_tables
from saliency_prompt.store.dataset import Dataset
from saliency_prompt.store.inputs import write_inputs
from saliency_prompt.store.layout import (
    CARD,
    COMMITS,
    SEAL,
    SHARDS,
    attempt_prefix,
    commit_key,
    inputs_key,
)
from saliency_prompt.store.objects import ObjectStore
from saliency_prompt.store.shard import IMAGES, build_shard, commit_shard

FUTURE = -60  # a grace time that makes all that exists old


def keys(store: ObjectStore, prefix: str) -> list[str]:
    return sorted(info.key for info in store.list(prefix))


def problems(dataset: Dataset) -> str:
    return "\n".join(map(str, verify(dataset).problems))


def test_a_good_data_set_has_no_problem(make: Any, store: ObjectStore) -> None:
    dataset = make.complete(store, saliency=True)
    report = verify(dataset)
    assert report.problems == []
    listed = list(store.list(SHARDS))
    assert (report.shards, report.files, report.bytes) == (3, len(listed), sum(info.size for info in listed))
    assert "no problem in 3 shards" in report.summary


def test_every_damaged_file_is_found_whatever_happened_to_it(make: Any, local_store: ObjectStore) -> None:
    dataset = make.complete(local_store, 12, saliency=True)
    commit = next(dataset.commits())
    for name in commit.files:
        key = f"{attempt_prefix(0, commit.attempt)}/{name}"
        data = local_store.get(key)
        flipped = bytearray(data)
        flipped[len(data) // 2] ^= 1
        for damaged in (data[:-1], data + b"\0", bytes(flipped), b"", None):
            local_store.delete([key]) if damaged is None else local_store.put(key, damaged)
            (problem,) = verify(dataset).problems
            assert (problem.shard_id, problem.file) == (0, name)
            assert f"shard 0: {name}" in str(problem)
        local_store.put(key, data)
    assert problems(dataset) == ""


def test_damaged_documents_are_found(make: Any, local_store: ObjectStore) -> None:
    dataset = make.complete(local_store)
    for key, expected in (
        (commit_key(1), "damaged or gone"),
        (SEAL, "is damaged"),
        (inputs_key(dataset.card.plan, 0), "cannot be read"),
    ):
        data = local_store.get(key)
        local_store.put(key, data[: len(data) // 2])
        assert expected in problems(dataset)
        local_store.put(key, data)
    local_store.delete([inputs_key(dataset.card.plan, 0)])
    assert "planned images: the plan is missing" in problems(dataset)


def test_a_plan_of_other_images_is_found(make: Any, local_store: ObjectStore) -> None:
    dataset = make.complete(local_store, 9)
    other = write_inputs(local_store, make.refs(10)[1:], 10)
    swapped = dataset.card.model_copy(update={"plan": other.plan})
    local_store.put(CARD, swapped.to_json())
    dataset = Dataset.of(local_store)
    found = problems(dataset)
    assert "plan: the planned images are not those" in found
    assert "not the planned ones" in problems(dataset)


def test_a_seal_of_other_data_is_found(make: Any, local_store: ObjectStore) -> None:
    dataset = make.complete(local_store)
    make.commit(dataset, 1, generation=1, seed=3)
    assert "sealed.json: it belongs to other data (root_hash, counts of the seal" in problems(dataset)
    local_store.delete([commit_key(2)])
    found = problems(dataset)
    assert "1 of 3 shards are not computed yet" in found
    assert "sealed although shards are missing" in found


def test_a_commit_whose_hash_is_not_that_of_its_files_is_found(make: Any, local_store: ObjectStore) -> None:
    dataset = make.dataset(local_store, 5)
    make.commit(dataset, 0)
    content = json.loads(local_store.get(commit_key(0)))
    local_store.put(commit_key(0), json.dumps({**content, "content_hash": "0" * 64}).encode())
    assert "content hash that is not that of the files" in problems(dataset)


def test_files_that_hold_no_shard_are_found(make: Any, local_store: ObjectStore) -> None:
    dataset = make.dataset(local_store, 5)
    info = CommitInfo(started=0, seconds=0, host="", code_version="")
    files = {"images.parquet": b"nonsense", "masks.parquet": b"nonsense"}
    fingerprint = dataset.card.fingerprint
    commit_shard(local_store, 0, files, fingerprint=fingerprint, counts=ShardCounts(images=5), info=info)
    assert "images.parquet: cannot be read (ArrowInvalid)" in problems(dataset)


def column(table: pa.Table, name: str, change: Callable[[list[Any]], Any]) -> pa.Table:
    values = table[name].to_pylist()
    change(values)
    index = table.schema.get_field_index(name)
    return table.set_column(index, table.schema.field(name), pa.array(values, table.schema.field(name).type))


def swap(values: list[Any]) -> None:
    values[0], values[-1] = values[-1], values[0]


def first(value: Any) -> Callable[[list[Any]], None]:
    def change(values: list[Any]) -> None:
        values[0] = value(values[0]) if callable(value) else value

    return change


@pytest.mark.parametrize(
    ("table", "name", "change", "expected"),
    [
        ("images", "image_id", swap, "not the planned ones"),
        ("images", "file_name", first("else.jpg"), "not the planned ones"),
        ("images", "status", first("empty"), "does not hold what the commit counts"),
        ("images", "status", first("empty"), "masks and status `ok` do not go together in 1 rows, the first being 0"),
        ("images", "reason", first("unreadable"), "reason and status `quarantined`"),
        ("images", "first_mask", first(1), "`first_mask` and `n_masks`"),
        ("images", "n_masks", first(lambda n: n + 1), "`first_mask` and `n_masks`"),
        ("masks", "image_id", first(12345), "image_id is not that of the image in 1 rows"),
        ("masks", "width", first(lambda w: w + 1), "width is not that of the image"),
        ("masks", "height", first(lambda h: h + 1), "height is not that of the image"),
        ("masks", "rank", first(1), "rank is wrong"),
        ("masks", "score", first(float("nan")), "score is not finite"),
        ("masks", "score_raw", first(float("inf")), "score is not finite"),
        ("masks", "score", first(0.0), "above that of a better rank"),
        ("masks", "bbox", first(lambda b: [b[0], b[1], b[0] + b[2] + 99, b[3]]), "not XYWH inside"),
        ("masks", "bbox", first(lambda b: [-1.0, *b[1:]]), "not XYWH inside"),
        ("masks", "bbox", first(lambda b: [b[0], b[1], b[2], b[3] - 1]), "not the tight one"),
        ("masks", "area", first(lambda a: a - 1), "area is not that of the RLE"),
        ("masks", "counts", swap, "the RLE is none of a mask of that size"),
    ],
)
def test_rows_that_contradict_each_other_are_found(
    make: Any, new_memory_store: Any, table: str, name: str, change: Any, expected: str
) -> None:
    dataset = make.dataset(new_memory_store(), 9)
    commit = make.commit(dataset, 0, saliency=True)
    tables, refs = dataset.read_shard(commit, vectors=True), dataset.read_inputs(0)
    assert list(check_tables(tables, commit.counts, refs)) == []
    assert tables.images["n_masks"][0].as_py() > 1
    damaged = replace(tables, **{table: column(getattr(tables, table), name, change)})
    found = list(check_tables(damaged, commit.counts, refs))
    assert expected in str(found)
    assert {file for file, _ in found} <= {"images.parquet", "masks.parquet"}


def test_arrays_that_do_not_fit_are_found(make: Any, new_memory_store: Any) -> None:
    dataset = make.dataset(new_memory_store(), 9)
    commit = make.commit(dataset, 0, saliency=True)
    tables = dataset.read_shard(commit, vectors=True)
    seed = tables.vectors["seed"].copy()
    seed[3, 3] = np.nan
    maps = dict(tables.saliency or {})
    for changed in (
        replace(tables, vectors={"seed": seed}),
        replace(tables, vectors={"seed": tables.vectors["seed"][:-1]}),
        replace(tables, saliency={**maps, "maps": maps["maps"][:-1]}),
        replace(tables, saliency={**maps, "offsets": maps["offsets"] + 1}),
    ):
        assert len(list(check_tables(changed, commit.counts, None))) == 1


def test_gc_removes_what_no_commit_names(make: Any, store: ObjectStore) -> None:
    dataset = make.complete(store)
    before = keys(store, "")
    store.put(f"{attempt_prefix(1, 'f' * 32)}/images.parquet", b"orphan")
    store.put(f"{attempt_prefix(9, 'e' * 32)}/prompts.zarr/seed/c/0/0", b"of no shard")
    assert gc(dataset).files == 0  # all is young
    assert gc(dataset, grace_seconds=FUTURE, dry_run=True) == gc(dataset, grace_seconds=FUTURE)
    assert keys(store, "") == before
    assert gc(dataset, grace_seconds=FUTURE).files == 0
    assert problems(dataset) == ""


def test_gc_removes_plans_that_lost_the_race(make: Any, store: ObjectStore) -> None:
    dataset = make.complete(store)
    write_inputs(store, make.refs(4), 10)
    assert gc(dataset).files == 0
    assert gc(dataset, grace_seconds=0).files == 1
    assert problems(dataset) == ""


def test_gc_removes_superseded_generations_after_the_grace(make: Any, store: ObjectStore) -> None:
    dataset = make.complete(store)
    old = make.commit(dataset, 1, generation=1, seed=1)
    new = make.commit(dataset, 1, generation=2, seed=2)
    dataset.seal()
    assert gc(dataset).files == 0
    dataset.read_shard(old, vectors=True)
    report = gc(dataset, grace_seconds=FUTURE)
    assert report.files == 2 * (len(old.files) + 1)
    assert keys(store, COMMITS) == [commit_key(0), commit_key(1, 2), commit_key(2)]
    assert {key.split("/")[3] for key in keys(store, f"{SHARDS}/000/000001")} == {new.attempt}
    assert problems(dataset) == ""


def test_gc_keeps_the_files_of_a_generation_that_was_just_superseded(make: Any, local_store: ObjectStore) -> None:
    dataset = make.complete(local_store)
    old = next(dataset.commits())
    root = local_store.local_root()
    assert root is not None
    for path in root.rglob("*"):
        os.utime(path, (time.time() - 10_000,) * 2)
    make.commit(dataset, 0, generation=1, seed=1)
    assert gc(dataset).files == 0
    dataset.read_shard(old, vectors=True)


def test_gc_keeps_what_is_committed_while_it_looks(make: Any, store: ObjectStore, monkeypatch: Any) -> None:
    dataset = make.dataset(store)
    make.commit(dataset, 0)
    real = ObjectStore.list

    def slow(self: ObjectStore, prefix: str) -> Any:
        if prefix == SHARDS and not dataset.committed()[1]:
            make.commit(dataset, 1)  # after the commits were read, before the files are listed
        yield from real(self, prefix)

    monkeypatch.setattr(ObjectStore, "list", slow)
    gc(dataset, grace_seconds=FUTURE)
    for commit in dataset.commits():
        dataset.read_shard(commit, vectors=True, verify=True)


def test_gc_removes_nothing_if_a_commit_is_damaged(make: Any, local_store: ObjectStore) -> None:
    dataset = make.complete(local_store)
    local_store.put(commit_key(1), b"{")
    before = keys(local_store, SHARDS)
    with pytest.raises(UserError, match="damaged"):
        gc(dataset, grace_seconds=FUTURE)
    assert keys(local_store, SHARDS) == before


def test_gc_removes_half_written_files_and_empty_folders(make: Any, local_store: ObjectStore) -> None:
    dataset = make.complete(local_store)
    root = local_store.local_root()
    assert root is not None
    before = {path for path in root.rglob("*") if path.is_file()}
    attempt = root / attempt_prefix(1, "f" * 32)
    left = [
        root / "dataset.json#1",
        root / f"{commit_key(1)}.{'0' * 32}.partial",
        root / "plan/inputs-00000.parquet#12",
        attempt / "images.parquet#1",
    ]
    mine = root / "notes#1"
    attempt.mkdir()
    for path in [*left, mine]:
        path.write_bytes(b"half")
    assert gc(dataset).files == 0
    assert gc(dataset, grace_seconds=FUTURE, dry_run=True).bytes == 16
    assert gc(dataset, grace_seconds=FUTURE).files == 4
    assert {path for path in root.rglob("*") if path.is_file()} == before | {mine}
    assert not attempt.exists()


@pytest.mark.parametrize("call", ["put", "put_if_absent"])
def test_gc_removes_what_a_killed_writer_leaves(make: Any, local_store: ObjectStore, call: str) -> None:
    dataset = make.complete(local_store)
    program = """
import resource, signal, sys
from saliency_prompt.store.objects import open_store
store = open_store(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
getattr(store, sys.argv[2])("commits/000/000001.1.json", bytes(5000))
"""
    killed = subprocess.run([sys.executable, "-c", program, local_store.url, call], check=False)
    assert killed.returncode == -signal.SIGXFSZ
    assert dataset.generations().tolist() == [0, 0, 0]
    assert gc(dataset, grace_seconds=FUTURE).files == 1
    assert sorted(os.listdir(f"{local_store.url}/commits/000")) == [f"00000{i}.json" for i in range(3)]


def test_tables_that_cannot_be_followed_are_a_problem_not_an_error(make: Any, local_store: ObjectStore) -> None:
    """Committed as they are, so that no digest tells: a writer with a fault of its own."""
    dataset = make.dataset(local_store, 9)
    records = make.records(make.refs(9))
    files = build_shard(records, 1)
    images = column(
        pq.read_table(io.BytesIO(files[IMAGES])), "n_masks", lambda n: n.__setitem__(slice(2), [-1, n[0] + n[1] + 1])
    )
    images = column(images, "first_mask", lambda first: first.__setitem__(1, -1))
    sink = io.BytesIO()
    pq.write_table(images, sink)
    info = CommitInfo(started=0, seconds=0, host="", code_version="")
    commit_shard(
        local_store,
        0,
        {**files, IMAGES: sink.getvalue()},
        fingerprint=dataset.card.fingerprint,
        counts=make.counts(records),
        info=info,
    )
    assert "images.parquet: does not hold numbers of masks" in problems(dataset)


def test_verify_reads_every_file_once(make: Any, local_store: ObjectStore, monkeypatch: Any) -> None:
    dataset = make.complete(local_store)
    seen: list[str] = []
    get = ObjectStore.get
    monkeypatch.setattr(ObjectStore, "get", lambda self, key: seen.append(key) or get(self, key))
    assert problems(dataset) == ""
    assert sorted(key for key in seen if key.startswith(SHARDS)) == keys(local_store, SHARDS)


def test_stray_files_beside_the_commits_count_for_nothing(make: Any, local_store: ObjectStore) -> None:
    dataset = make.complete(local_store)
    for name in ("0.json", "000000.99999.json", "000000 (copy).json"):
        local_store.put(f"{COMMITS}/000/{name}", b"{}")
    assert dataset.generations().tolist() == [0, 0, 0]
    assert problems(dataset) == ""
