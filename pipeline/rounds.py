"""Self-training: a detector is trained on masks, labels their photographs anew, and the next one is trained on that.

Every round begins with the same backbone (thesis, Wang, Deep Object Segmentation and Beyond, section 6.2.3). A round
is a training run and a data set, each of which resumes by itself: so do rounds.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from ..schemas.errors import UserError
from ..schemas.labels.detector import DetectorConfig
from ..schemas.training.freesolo import FreeSoloTraining
from ..stages.training.fit import Outcome
from ..store.dataset import Dataset
from ..store.run import Run
from .generate import Executor, Job, Reporter, generate
from .parent import ParentPhotos, open_parent
from .run import RunReport
from .training.job import Inputs, TrainingJob

Train = Callable[[TrainingJob], Outcome]
Label = Callable[[Job, ParentPhotos], tuple[Dataset, RunReport]]


@dataclass(frozen=True, slots=True)
class Rounds:
    """Train on the data set `free`, label, train on that: `count` times, below the folder `out`.

    images: where the photographs are, if not where `free` found them. weights: the backbone of every round. `training`
    and `labels` say how. val_images and val_gt: what each round is evaluated on.
    """

    free: str
    out: Path
    weights: str
    training: FreeSoloTraining
    labels: DetectorConfig
    device: torch.device
    images: str | None = None
    count: int = 2
    val_images: str | None = None
    val_gt: str | None = None

    def run_folder(self, number: int) -> Path:
        """Where a round is trained."""
        return self.out / f"round-{number}"

    def labels_url(self, number: int) -> str:
        """What a round labels."""
        return str(self.out / f"labels-{number}")

    def data_url(self, number: int) -> str:
        """What a round is trained on: the labels of the one before it."""
        return self.labels_url(number - 1) if number else self.free

    def training_job(self, number: int) -> TrainingJob:
        """Of one round; begun or gone on with."""
        inputs = Inputs(
            dataset=self.data_url(number),
            images=self.images,
            weights=self.weights,
            val_images=self.val_images,
            val_gt=self.val_gt,
        )
        return TrainingJob("freesolo", self.training, inputs, self.run_folder(number))

    def label_job(self, number: int) -> tuple[Job, ParentPhotos]:
        """Of one round: the photographs that it was trained on."""
        parent = open_parent(self.data_url(number))
        run = str(self.run_folder(number).absolute())  # workers start elsewhere
        return Job(self.labels_url(number), self.labels, self.device, run, parent), ParentPhotos(parent, self.images)


@dataclass(frozen=True, slots=True)
class Round:
    """What a round came to; `labels` is None where it was stopped before all were made."""

    number: int
    trained: Outcome
    labels: Dataset | None = None


def run_rounds(rounds: Rounds, train: Train, label: Label) -> Iterator[Round]:
    """Carry out what is left to do and give each round as it ends; the last one given may be unfinished.

    Raises UserError if a round's folder holds another run, or its labels were made otherwise.
    """
    check_rounds(rounds)
    for number in range(rounds.count):
        outcome = train(rounds.training_job(number))
        if not outcome.finished:
            yield Round(number, outcome)
            return
        dataset, report = label(*rounds.label_job(number))
        if report.seal is None:
            yield Round(number, outcome)
            return
        if not report.seal.counts.masks:
            raise UserError(
                f"Round {number} found no object above {rounds.labels.detect.min_score:g} in any photograph: train "
                "longer (trainer.max_epochs), or lower --min-score."
            )
        yield Round(number, outcome, dataset)


def check_rounds(rounds: Rounds) -> None:
    """Raise UserError for what would fail after hours: labels that are not complete, a folder of something else."""
    open_parent(rounds.free)
    for number in range(rounds.count):
        card = Run(rounds.run_folder(number)).find_card()
        if card is not None and (card.recipe, card.model) != ("freesolo", "freesolo"):
            raise UserError(
                f"{rounds.run_folder(number)} holds a run of {card.model}, not of freesolo: give another --out."
            )


def label_here(reporter: Reporter, stop: threading.Event, executor: Executor | None = None) -> Label:
    """A way to label: in this process, or where `executor` says."""

    def label(job: Job, photos: ParentPhotos) -> tuple[Dataset, RunReport]:
        return generate(photos, job, reporter, stop, executor)

    return label
