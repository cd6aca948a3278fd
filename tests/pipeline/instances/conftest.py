"""Twelve scenes with their pseudo-labels and their true masks as COCO annotations."""

import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from corpus import write_scenes
from saliency_prompt.pipeline.generate import Job, generate
from saliency_prompt.pipeline.progress import Display
from saliency_prompt.pipeline.sources import open_source
from saliency_prompt.schemas.load import load_config

SMALL = [
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
    job = Job(str(base / "data"), load_config(overrides=SMALL), torch.device("cpu"))
    with Display(Console(quiet=True)) as display:
        generate(open_source(str(base / "photos")), job, display, threading.Event())
    return LabelledWorld(base / "photos", str(base / "data"), gt)
