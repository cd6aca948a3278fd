"""What the description of the format shows and says is so."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

import saliency_prompt
from saliency_prompt.schemas.manifest import DatasetCard, Seal, ShardCommit
from saliency_prompt.schemas.records import IMAGES_SCHEMA, INPUTS_SCHEMA, MASKS_SCHEMA
from saliency_prompt.store.objects import ObjectStore

TEXT = (Path(saliency_prompt.__file__).parent / "docs" / "data-format.md").read_text(encoding="utf-8")
RECIPES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def run(recipe: str, url: str) -> list[str]:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(recipe.replace("DATASET", url), "data-format.md", "exec"), {})  # noqa: S102
    return printed.getvalue().splitlines()


def test_the_recipe_reads_what_was_written(make: Any, local_store: ObjectStore) -> None:
    dataset = make.complete(local_store)
    make.commit(dataset, 1, generation=1, records=make.records(dataset.read_inputs(1), seed=5))
    records = make.records(make.refs(10)) + make.records(make.refs(20)[10:], seed=5) + make.records(make.refs(25)[20:])
    lines = run(RECIPES[0], local_store.url)
    assert len(lines) == 25
    for line, record in zip(lines, records, strict=True):
        n = len(record.masks) if record.masks else 0
        assert line.startswith(f"{record.file_name} {record.status} {n} [")
        if record.masks:
            assert str(record.masks.bbox[0].tolist()) in line
            assert line.endswith(f"({n}, 64)")


def test_the_short_recipe_agrees(make: Any, local_store: ObjectStore) -> None:
    dataset = make.complete(local_store)
    masks = [commit.counts.masks for commit in dataset.commits()]
    assert [line.split()[1] for line in run(RECIPES[2], local_store.url)] == [str(n) for n in masks]


def test_the_recipe_notices_a_short_file(make: Any, local_store: ObjectStore) -> None:
    dataset = make.complete(local_store)
    commit = next(dataset.commits())
    key = f"shards/000/000000/{commit.attempt}/prompts.zarr/seed/c/0/0"
    local_store.put(key, local_store.get(key)[:-1])
    with pytest.raises(AssertionError, match="is damaged"):
        run(RECIPES[0], local_store.url)


def test_every_field_and_column_is_described() -> None:
    fields = [*DatasetCard.model_fields, *ShardCommit.model_fields, *Seal.model_fields]
    columns = [*INPUTS_SCHEMA.names, *IMAGES_SCHEMA.names, *MASKS_SCHEMA.names]
    assert [name for name in (*fields, *columns) if f"`{name}`" not in TEXT] == []
