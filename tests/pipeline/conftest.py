"""A small world for the whole job: generated photographs and a configuration that takes milliseconds an image."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from corpus import write_photos, write_scenes
from saliency_prompt.pipeline.engine import Meter
from saliency_prompt.pipeline.generate import Job, generate, retry_quarantined
from saliency_prompt.pipeline.parent import ParentPhotos, open_parent
from saliency_prompt.pipeline.plan import Planned
from saliency_prompt.pipeline.progress import Display
from saliency_prompt.pipeline.run import RunReport, ShardReport
from saliency_prompt.pipeline.sources import open_source
from saliency_prompt.schemas.labels.saliency import Config
from saliency_prompt.schemas.load import load_config
from saliency_prompt.schemas.registry import load_label_config
from saliency_prompt.store.dataset import Dataset
from toy_detector import open_toy

SMALL = [
    "features.weights=lab-color",
    "decode.short_side=160",
    "decode.long_side=320",
    "plan.shard_size=4",
    "features.batch_size=2",
]


class Silence:
    """A reporter that remembers the shards committed."""

    def __init__(self) -> None:
        self.shards: list[int] = []

    def planned(self, planned: Planned, shards: int) -> None: ...

    def running(self, meter: Meter) -> None: ...

    def committed(self, report: ShardReport) -> None:
        self.shards.append(report.shard_id)


class World:
    """Runs the main job on folders below one temporary folder."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.shards: list[int] = []

    def config(self, *overrides: str) -> Config:
        return load_config(overrides=[*SMALL, *overrides])

    def run(
        self,
        photos: Path | str | None,
        out: str,
        *overrides: str,
        retry: bool = False,
        root: str | None = None,
        model: Path | None = None,
        parent: str | None = None,
    ) -> tuple[Dataset, RunReport]:
        """With `model`, the folder of a toy detector, that labels; `parent` is labelled anew."""
        reporter = Silence()
        config = self.config(*overrides) if model is None else load_label_config("detector", None, None, overrides)
        where = out if "://" in out else str(self.base / out)
        before = None if parent is None else open_parent(str(self.base / parent))
        source = open_source(str(photos), root) if before is None else ParentPhotos(before, photos and str(photos))
        job = Job(where, config, torch.device("cpu"), model and str(model), before, open_toy)
        run = retry_quarantined if retry else generate
        result = run(source, job, reporter, threading.Event())
        self.shards = reporter.shards
        return result

    def root_hash(self, photos: Path | str, out: str, *overrides: str) -> str:
        seal = self.run(photos, out, *overrides)[1].seal
        assert seal is not None
        return seal.root_hash


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten scenes of two shapes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    write_photos(folder, 10)
    return folder


@pytest.fixture
def rows() -> Callable[[Dataset], dict[str, dict[str, object]]]:
    """Reads all image rows of a data set, by file name."""

    def read(dataset: Dataset) -> dict[str, dict[str, object]]:
        tables = [dataset.read_shard(commit) for commit in dataset.commits()]
        return {row["file_name"]: row for table in tables for row in table.images.to_pylist()}

    return read


LABELS = [
    "features.weights=random",
    "features.arch=resnet18",
    "features.precision=fp32",
    "decode.short_side=256",
    "decode.long_side=512",
    "plan.shard_size=5",
    "filters.min_score=0.0",
    "filters.keep_best=true",
]


@dataclass(frozen=True)
class LabelledWorld:
    """Photographs, a data set of pseudo-labels of them, and annotations whose category ids have gaps."""

    photos: Path
    dataset: str
    gt: Path


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> LabelledWorld:
    from rich.console import Console

    base = tmp_path_factory.mktemp("labelled")
    gt = write_scenes(base / "photos", 12)
    job = Job(str(base / "data"), load_config(overrides=LABELS), torch.device("cpu"))
    with Display(Console(quiet=True)) as display:
        generate(open_source(str(base / "photos")), job, display, threading.Event())
    return LabelledWorld(base / "photos", str(base / "data"), gt)
