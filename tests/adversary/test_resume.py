"""`generate` on data sets of a program of before, and on sealed ones whose files are gone."""

import logging
import threading
from pathlib import Path

import pytest
import torch

from saliency_prompt.pipeline.engine import Meter
from saliency_prompt.pipeline.generate import Job, generate
from saliency_prompt.pipeline.plan import Planned
from saliency_prompt.pipeline.run import RunReport, ShardReport
from saliency_prompt.pipeline.sources import open_source
from saliency_prompt.schemas.load import load_config
from saliency_prompt.store.check import verify
from saliency_prompt.store.dataset import Dataset
from saliency_prompt.store.layout import commit_key

from .conftest import Labelled

AS_BEFORE = [
    "features.weights=lab-color",
    "decode.short_side=96",
    "decode.long_side=192",
    "plan.shard_size=2",
    "features.batch_size=2",
    "filters.min_score=0",
    "encode.saliency=true",
]


class Silence:
    """A reporter that remembers the shards committed."""

    def __init__(self) -> None:
        self.shards: list[int] = []

    def planned(self, planned: Planned, shards: int) -> None: ...

    def running(self, meter: Meter) -> None: ...

    def committed(self, report: ShardReport) -> None:
        self.shards.append(report.shard_id)


def run(photos: Path, out: str, *overrides: str) -> tuple[Dataset, RunReport, list[int]]:
    reporter = Silence()
    job = Job(out, load_config(overrides=[*AS_BEFORE, *overrides]), torch.device("cpu"))
    dataset, report = generate(open_source(str(photos)), job, reporter, threading.Event())
    return dataset, report, reporter.shards


def test_a_data_set_of_before_is_resumed(old: Labelled) -> None:
    expected = Dataset.open(old.url).sealed
    assert expected is not None
    old.file("commits/*/000001.json").unlink()
    (old.path / "sealed.json").unlink()
    dataset, report, shards = run(old.photos, old.url)
    assert shards == [1]
    assert report.seal == expected == dataset.sealed
    assert verify(dataset).problems == []
    assert run(old.photos, old.url)[2] == []


def test_missing_files_of_a_sealed_data_set_are_made_anew(old: Labelled, caplog: pytest.LogCaptureFixture) -> None:
    expected = Dataset.open(old.url).sealed
    assert expected is not None
    old.file("shards/000/000001/*/images.parquet").unlink()
    with caplog.at_level(logging.WARNING):
        dataset, report, shards = run(old.photos, old.url)
    assert shards == [1]
    assert "shard 1 lacks files" in caplog.text
    assert dataset.store.exists(commit_key(1, 1))
    assert report.seal is not None
    assert report.seal.root_hash == expected.root_hash
    assert verify(dataset).problems == []


def test_a_sealed_data_set_that_lost_a_commit_is_made_whole(old: Labelled) -> None:
    expected = Dataset.open(old.url).sealed
    old.file("commits/*/000001.json").unlink()
    dataset, report, shards = run(old.photos, old.url)
    assert shards == [1]
    assert report.seal == expected
    assert verify(dataset).problems == []


def test_new_saliency_data_sets_are_as_before_but_for_their_digests(old: Labelled, tmp_path: Path) -> None:
    dataset, report, _ = run(old.photos, str(tmp_path / "new"), "decode.exif=ignore")  # the default of before
    before = Dataset.open(old.url).card.model_dump(mode="json", exclude={"plan", "device"})
    now = dataset.card.model_dump(mode="json", exclude={"plan", "device"})
    # what came later has its default: the fingerprints are equal
    now["config"] = {
        name: {key: value for key, value in section.items() if key in before["config"][name]}
        for name, section in now["config"].items()
        if name in before["config"]
    }
    assert now == before
    assert b"producer" not in (tmp_path / "new" / "dataset.json").read_bytes()  # programs of before read it
    assert report.seal is not None
    assert (tmp_path / "new" / "sealed.json").read_bytes() == report.seal.to_json()
    assert len(list((tmp_path / "new").glob("plan/*/digests.json"))) == 1
