"""Two rounds of FreeSOLO on eight generated scenes, as tests carry them out."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from corpus import write_scenes
from saliency_prompt.pipeline.api import generate
from saliency_prompt.pipeline.rounds import Round, Rounds, label_here, run_rounds
from saliency_prompt.pipeline.training.job import TrainingJob
from saliency_prompt.schemas.labels.detector import DetectorConfig
from saliency_prompt.schemas.registry import load_label_config
from saliency_prompt.schemas.training.freesolo import FreeSoloTraining
from saliency_prompt.schemas.training.registry import load_training_config
from saliency_prompt.stages.training.fit import Control, Outcome, Place
from training_runs import CPU, small_weights

FREE = [
    "features.precision=fp32",
    "decode.short_side=128",
    "decode.long_side=192",
    "plan.shard_size=3",
    "filters.min_score=0.0",
    "filters.keep_best=true",
]
TRAINING = [
    "data.batch_size=4",
    "data.short_side=64",
    "data.long_side=96",
    "data.workers=0",
    "trainer.max_epochs=1",
    "trainer.log_every=1",
    "trainer.checkpoint_every=1",
    "trainer.precision=fp32",
    "trainer.evaluate_every=0",
    "model.class_score=0.001",
    "model.min_score=0.0",
]
LABELS = ["detect.precision=fp32", "detect.batch_size=2", "detect.min_score=0.0", "detect.max_masks=5"]


def write_world(base: Path) -> Path:
    """Eight scenes in `photos`, and in `free` their free masks by the backbone that every round starts from."""
    write_scenes(base / "photos", 8)
    generate(base / "photos", base / "free", weights=small_weights(), settings=FREE, device="cpu")
    return base


def rounds_of(world: Path, out: Path, *overrides: str, **more: Any) -> Rounds:
    training = load_training_config("freesolo", "tiny", overrides=[*TRAINING, *overrides])
    labels = load_label_config("detector", None, None, LABELS)
    assert isinstance(training, FreeSoloTraining)
    assert isinstance(labels, DetectorConfig)
    return replace(Rounds(str(world / "free"), out, small_weights(), training, labels, CPU), **more)


class CutError(Exception):
    """Stands for the end of a process."""


class Counted:
    """A reporter that ends it all at an event of some number; shared by training and labelling."""

    def __init__(self, fatal: int | None = None) -> None:
        self.seen, self.fatal = 0, fatal

    def event(self, *_: Any) -> None:
        self.seen += 1
        if self.seen == self.fatal:
            raise CutError

    planned = committed = event

    def running(self, meter: Any) -> None: ...


def go(rounds: Rounds, told: Counted | None = None) -> list[Round]:
    told = told or Counted()

    def train_here(job: TrainingJob) -> Outcome:
        told.event()
        outcome = job.run(Place(CPU), Control(report=told.event))
        told.event()
        return outcome

    return list(run_rounds(rounds, train_here, label_here(told, threading.Event())))


def hashes(found: list[Round]) -> list[str]:
    return [one.labels.sealed.root_hash for one in found if one.labels is not None and one.labels.sealed is not None]
