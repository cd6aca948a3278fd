import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.records import ImageRef
from saliency_prompt.store import inputs
from saliency_prompt.store.inputs import InputsReader, discard_inputs, write_inputs
from saliency_prompt.store.layout import PLAN
from saliency_prompt.store.objects import ObjectStore


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "FILE_ROWS", 25)


@pytest.mark.usefixtures("small_files")
def test_a_plan_of_several_files_is_read_shard_by_shard(make: Any, store: ObjectStore) -> None:
    refs = [replace(ref, width=i, height=2 * i) if i % 3 else ref for i, ref in enumerate(make.refs(63))]
    plan = write_inputs(store, iter(refs), 10)
    assert (plan.n_images, plan.n_shards) == (63, 7)
    assert len(list(store.list(PLAN))) == 4  # two shards of ten fit into 25 rows
    reader = InputsReader(store, plan.plan, 63, 10)
    shards = {shard_id: reader.read(shard_id) for shard_id in (6, 0, 1, 5, 4, 2, 3, 3)}
    assert [ref for shard_id in range(7) for ref in shards[shard_id]] == refs
    assert [len(shards[i]) for i in range(7)] == [10] * 6 + [3]


def test_the_hash_names_the_inputs_wherever_they_lie(make: Any, new_memory_store: Any) -> None:
    def planned(refs: list[ImageRef], shard_size: int = 10) -> str:
        return write_inputs(new_memory_store(), refs, shard_size).inputs_sha256

    refs = make.refs(30)
    assert planned([replace(ref, uri="/elsewhere") for ref in refs], 7) == planned(refs)
    first, *rest = refs
    changed = [[replace(first, file_name="x"), *rest], [replace(first, width=1), *rest]]
    assert len({planned(refs), *map(planned, [rest, refs[::-1], *changed])}) == 5


@pytest.mark.usefixtures("small_files")
def test_two_images_of_one_id_are_named(make: Any, local_store: ObjectStore) -> None:
    refs = make.refs(60)
    refs[55] = replace(refs[55], image_id=refs[3].image_id)
    with pytest.raises(UserError, match=r"003 é.jpg and photos/055 é.jpg have the same image id 22 \(1 such"):
        write_inputs(local_store, refs, 10)
    assert not list(local_store.list(PLAN))  # a refused plan leaves nothing


def test_two_plans_at_once_do_not_touch_each_other(make: Any, local_store: ObjectStore) -> None:
    first, second = write_inputs(local_store, make.refs(5), 10), write_inputs(local_store, make.refs(9), 10)
    assert len(InputsReader(local_store, first.plan, 5, 10).read(0)) == 5
    discard_inputs(local_store, first.plan)
    assert len(InputsReader(local_store, second.plan, 9, 10).read(0)) == 9
    assert len(list(local_store.list(PLAN))) == 1


def test_no_image_is_no_plan(local_store: ObjectStore) -> None:
    with pytest.raises(UserError, match="no image"):
        write_inputs(local_store, [], 10)


def test_memory_does_not_grow_with_the_plan(local_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "FILE_ROWS", 4096)

    def refs(count: int) -> Iterator[ImageRef]:
        return (ImageRef(i, f"folder/{i:09d}.jpg", f"/photographs/folder/{i:09d}.jpg") for i in range(count))

    peaks = []
    for count in (10_000, 60_000):
        tracemalloc.start()
        write_inputs(local_store, refs(count), 512)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 50_000 * 30  # the ids, sorted; the references themselves take ten times as much


def test_one_shard_of_a_bucket_costs_its_own_range(make: Any, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from saliency_prompt.store import objects

    store = objects.open_store(s3_url)
    planned = write_inputs(store, (ImageRef(i, f"{i * 2654435761 % 2**32:x}.jpg", "") for i in range(200_000)), 1000)
    (plan,) = store.list(PLAN)
    read = 0
    open_reader = objects.obstore.open_reader

    def counting(*args: Any) -> Any:
        reader = open_reader(*args)

        class Counting:
            seek, tell = reader.seek, reader.tell

            def read(self, size: int) -> Any:
                nonlocal read
                read += size
                return reader.read(size)

        return Counting()

    monkeypatch.setattr(objects.obstore, "open_reader", counting)
    reader = InputsReader(store, planned.plan, 200_000, 1000)
    assert reader.read(7)[0].image_id == 7000
    first, read = read, 0
    assert reader.read(8)[0].image_id == 8000
    assert plan.size > 1_000_000
    assert read < plan.size / 50
    assert first < plan.size / 4
