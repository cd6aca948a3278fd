"""Finished data sets, and one with photographs and classes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from makers import Maker, Photographed
from saliency_prompt.store.dataset import Dataset
from saliency_prompt.store.objects import ObjectStore, open_store


@pytest.fixture(scope="session")
def make() -> Maker:
    return Maker()


@pytest.fixture
def local_store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "data set"))


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, local_store: ObjectStore) -> ObjectStore:
    if request.param == "local":
        return local_store
    from obstore.store import MemoryStore

    return ObjectStore("memory://", MemoryStore())


@pytest.fixture
def photographed(tmp_path: Path) -> Callable[..., Dataset]:
    """Makes a sealed data set of 12 photographs that are there."""

    def build(big_ids: bool = False, **about: Any) -> Dataset:
        folder = tmp_path / "photos"
        maker = Photographed(folder, big_ids)
        dataset = maker.dataset(open_store(str(tmp_path / "labels")), 12, 5, source=str(folder), **about)
        for shard in range(dataset.card.n_shards):
            records = maker.records(dataset.read_inputs(shard))
            if about:
                records = [_labelled(record) for record in records]
            maker.commit(dataset, shard, records=records)
        dataset.seal()
        return dataset

    return build


def _labelled(record: Any) -> Any:
    if record.masks is None:
        return record
    labels = np.arange(len(record.masks), dtype=np.int32) % 3
    extra = {"label": labels, "maskness": record.masks.score}
    return replace(record, masks=replace(record.masks, extra=extra, source="detector"))


DETECTOR = {"producer": "detector", "mask_columns": {"label": "int32", "maskness": "float32"}}


@pytest.fixture
def detector_card() -> dict[str, Any]:
    return DETECTOR
