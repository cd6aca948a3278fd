"""Edits of what no commit covers: card, plan and seal."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.store.check import verify
from saliency_prompt.store.dataset import Dataset
from saliency_prompt.store.layout import CARD, SEAL, digests_key, inputs_key, seal_key
from saliency_prompt.store.objects import ObjectStore

from .conftest import Labelled


def edited(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str() if len(value) == 64:
            return value[::-1] if value != value[::-1] else "1" * 64
        case str():
            return f"{value}-edited"
        case dict():
            return {**value, next(iter(value)): edited(value[next(iter(value))])}
    raise AssertionError(value)


def said(store: ObjectStore) -> str:
    """What a user is told, by opening or by verifying."""
    try:
        return "\n".join(map(str, verify(Dataset.of(store)).problems))
    except UserError as error:
        return str(error)


def test_every_field_of_card_seal_and_digests_is_covered(make: Any, local_store: ObjectStore) -> None:
    dataset = make.complete(local_store)
    assert said(local_store) == ""
    untold = []
    for key in (CARD, SEAL, seal_key(0), digests_key(dataset.card.plan)):
        data = local_store.get(key)
        content = json.loads(data)
        for name, value in content.items():
            local_store.put(key, json.dumps({**content, name: edited(value)}).encode())
            if not said(local_store):
                untold.append((key, name))
        local_store.put(key, data)
    assert untold == []
    assert said(local_store) == ""


def test_documents_that_are_gone_are_missed(make: Any, local_store: ObjectStore) -> None:
    dataset = make.complete(local_store)
    for key in (CARD, SEAL, digests_key(dataset.card.plan), inputs_key(dataset.card.plan, 0)):
        data = local_store.get(key)
        local_store.delete([key])
        assert said(local_store), key
        local_store.put(key, data)
    assert said(local_store) == ""


@pytest.mark.parametrize("column", ["uri", "size_bytes", "file_name", "image_id"])
def test_rows_of_the_plan_are_covered(make: Any, local_store: ObjectStore, column: str) -> None:
    dataset = make.complete(local_store)
    key = inputs_key(dataset.card.plan, 0)
    root = local_store.local_root()
    assert root is not None
    rewrite(root / key, column)
    assert key in said(local_store)


def rewrite(path: Path, column: str) -> None:
    groups = pq.ParquetFile(path)
    tables = [groups.read_row_group(i) for i in range(groups.num_row_groups)]
    with pq.ParquetWriter(path, groups.schema_arrow, compression="zstd", use_dictionary=False) as writer:
        for table in tables:
            field = table.schema.field(column)
            place = table.schema.get_field_index(column)
            values = [edited(value) for value in table[column].to_pylist()]
            writer.write_table(table.set_column(place, field, pa.array(values, field.type)))


@pytest.mark.parametrize("change", ["config__threshold__tau", "config__nms__max_masks", "weights_sha256"])
def test_the_fingerprint_covers_the_configuration_of_old_cards(old: Labelled, change: str) -> None:
    assert verify(Dataset.open(old.url)).problems == []
    old.edit("dataset.json", **{change: "0" * 64 if change == "weights_sha256" else 1})
    assert "fingerprint" in str(verify(Dataset.open(old.url)).problems[0])


def test_the_seal_of_an_old_data_set_is_compared_whole(old: Labelled) -> None:
    for change in ({"n_shards": 3}, {"format_version": 2}, {"counts__ok": 3}, {"fingerprint": "0" * 64}):
        before = old.file("sealed.json").read_bytes()
        old.edit("sealed.json", **change)
        assert "sealed.json" in str(verify(Dataset.open(old.url)).problems)
        old.file("sealed.json").write_bytes(before)
