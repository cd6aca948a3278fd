"""One flipped bit anywhere: the same data, or one error that names file and shard."""

import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.store.check import verify
from saliency_prompt.store.damage import DamageError
from saliency_prompt.store.dataset import Dataset
from saliency_prompt.store.layout import attempt_prefix
from saliency_prompt.store.objects import ObjectStore

from .conftest import Labelled


def test_a_flip_in_any_file_of_a_shard_names_file_and_shard(old: Labelled) -> None:
    expected, dice = old.train(), random.Random(0)
    files = [path for path in old.path.glob("shards/**/*") if path.is_file()]
    heard: list[tuple[str, DamageError]] = []
    for path in files:
        data = path.read_bytes()
        for _ in range(3):
            bit = dice.randrange(8 * len(data))
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(bytes(flipped))
            try:
                found = old.train()
            except DamageError as error:
                heard.append((path.as_posix(), error))
            else:
                assert found == expected  # not read: soft maps, or a shard without masks
        path.write_bytes(data)
    assert len(heard) >= 3 * 6
    for place, error in heard:
        assert error.file
        assert place.endswith(error.file)
        assert re.search(r"of shard [01] in", str(error))
    assert old.train() == expected


def test_a_flip_in_any_document_is_heard(old: Labelled) -> None:
    expected, dice = old.train(), random.Random(1)
    for path in [*old.path.glob("*.json"), *old.path.glob("commits/**/*.json"), *old.path.glob("plan/*/*.parquet")]:
        data = path.read_bytes()
        for _ in range(30):
            bit = dice.randrange(8 * len(data))
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(bytes(flipped))
            try:
                found = old.train()
            except UserError:
                continue
            assert found == expected
        path.write_bytes(data)


def test_files_are_hashed_once_and_not_at_all_if_asked(
    make: Any, local_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    dataset = make.complete(local_store)
    commit = next(dataset.commits())
    hashed: list[int] = []
    sha256 = hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", lambda data=b"": hashed.append(len(data)) or sha256(data))
    fresh, unchecked = Dataset.of(local_store), Dataset.of(local_store, check=False)
    hashed.clear()
    fresh.read_shard(commit)
    assert sorted(hashed) == sorted(entry.size for entry in commit.files.values())
    fresh.read_shard(commit)
    assert len(hashed) == len(commit.files)
    unchecked.read_shard(commit)
    assert len(hashed) == len(commit.files)


@pytest.mark.parametrize("name", ["masks.parquet", "prompts.zarr/seed/c/0/0", "saliency.zarr/maps/c/0"])
def test_format_2_carries_checksums_inside(make: Any, local_store: ObjectStore, name: str) -> None:
    """For readers that hash nothing, other programs among them. Headers of parquet pages are not covered."""
    made = make.dataset(local_store, 10, producer="detector")
    records = make.records(make.refs(10), saliency=True)
    for record in records:
        if record.masks:
            record.masks.extra.clear()
    commit = make.commit(made, 0, records=records)
    assert (commit.format_version, made.card.format_version) == (2, 2)
    dataset = Dataset.of(local_store, check=False)
    before = dataset.read_shard(commit)
    key = f"{attempt_prefix(0, commit.attempt)}/{name}"
    data, dice, heard = local_store.get(key), random.Random(2), 0
    for _ in range(40):
        bit = dice.randrange(8 * len(data))
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        local_store.put(key, bytes(flipped))
        try:
            now = Dataset.of(local_store, check=False).read_shard(commit)
        except DamageError:
            heard += 1
            continue
        assert now.masks.equals(before.masks)
        assert all(np.array_equal(now.vectors[one], before.vectors[one]) for one in before.vectors)
        assert now.saliency is not None
        assert before.saliency is not None
        assert all(np.array_equal(now.saliency[one], before.saliency[one]) for one in before.saliency)
    assert heard > 20


def test_a_data_set_of_format_2_is_verified_like_any_other(make: Any, local_store: ObjectStore) -> None:
    kinds = {"label": "int32", "texts": "list<string>", "text_scores": "list<float>"}
    dataset = make.dataset(local_store, 25, producer="another", mask_columns=kinds, parent="0" * 64)
    for shard in range(3):
        records = make.records(dataset.read_inputs(shard))
        for record in records:
            if record.masks:
                n = len(record.masks)
                record.masks.extra.clear()
                record.masks.extra["label"] = np.arange(n, dtype=np.int32)
                record.masks.extra["texts"] = [["a dog", "ä"]] * n
                record.masks.extra["text_scores"] = [[0.5, 0.25]] * n
        make.commit(dataset, shard, records=records)
    dataset.seal()
    opened = Dataset.of(local_store)
    assert verify(opened).problems == []
    masks = opened.read_masks(next(opened.checked_commits()))
    assert masks.column_names[-5:] == ["score", "label", "texts", "text_scores", "source"]
    assert masks["texts"].to_pylist()[0] == ["a dog", "ä"]


def test_photographs_that_changed_are_noticed(old: Labelled) -> None:
    """Same size in pixels and bytes: only its digest tells, which decoding computes anyway."""
    assert len(old.train()) == 2
    name = next(path for path in old.photos.glob("photo_*.jpg"))
    data = bytearray(name.read_bytes())
    data[data.index(b"\xff\xda") + 40] ^= 1
    name.write_bytes(bytes(data))
    with pytest.raises(UserError, match="was changed since its labels were made"):
        old.train()
    assert len(old.train(check=False)) == 2


def test_the_fixture_is_what_it_was() -> None:
    """The bytes of format 1 do not change."""
    from .conftest import FIXTURES

    dataset = Dataset.open(str(FIXTURES / "format1"))
    assert dataset.sealed is not None
    assert dataset.sealed.root_hash.startswith("58724bf10670")
    assert verify(dataset).problems == []
    assert Path(FIXTURES / "format1" / "dataset.json").read_bytes() == dataset.card.to_json()
