"""The main job: photographs in, a sealed data set of pseudo-masks and prompt vectors out."""

import hashlib
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from ..schemas.labels.base import LabelConfig
from ..schemas.manifest import ShardCommit
from ..schemas.records import ImageRecord, ImageRef
from ..stages.read import BadImage, read_image_bytes
from ..store.dataset import Dataset, Generations
from ..store.presence import incomplete_shards
from ..version import __version__
from .drain import watch_drain
from .engine import Meter, load_image
from .journal import Journal
from .labeller import Labeller, TrainedModel, open_run
from .parent import Parent
from .plan import Planned, plan
from .run import RunReport, ShardReport, ShardRunner, finish, run_in_process
from .sources import Source

log = logging.getLogger(__name__)


class Reporter(Protocol):
    """Where a run tells how it goes."""

    def planned(self, planned: Planned, shards: int) -> None:
        """The data set is planned; so many shards will be run now."""

    def running(self, meter: Meter) -> None:
        """Called several times a second while shards run."""

    def committed(self, report: ShardReport) -> None:
        """A shard was committed."""


@dataclass(frozen=True, slots=True)
class Job:
    """What `generate` needs beside the source: where to, how, and on what device of this machine.

    `run` is the folder of a training run, for a producer that needs one; `parent` what the data set is made from.
    """

    out: str
    config: LabelConfig
    device: torch.device
    run: str | None = None
    parent: Parent | None = None
    open_run: Callable[[Path], TrainedModel] = open_run

    @property
    def labeller(self) -> Labeller:
        """What labels."""
        return Labeller(self.config, self.run, self.open_run)


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """Shards to run: those whose entry in `todo` is the generation to commit, not -1. Told to reporter and journal."""

    planned: Planned
    todo: Generations
    reporter: Reporter
    journal: Journal
    stop: threading.Event

    def running(self, meter: Meter) -> None:
        """Called several times a second while shards run."""
        self.reporter.running(meter)
        self.journal.pulse(images=meter.images, masks=meter.masks, quarantined=meter.quarantined)


class Executor(Protocol):
    """Where shards are computed."""

    def plan(self, source: Source, job: Job) -> Planned:
        """Plan or find the data set, for the hardware that will compute it."""

    def run(self, work: Work) -> Iterator[ShardReport]:
        """Run the shards and give each report as its shard is committed; fewer if `work.stop` is set."""


class InProcess:
    """Computes in this process, on one device."""

    def __init__(self) -> None:
        self._device = torch.device("cpu")

    def plan(self, source: Source, job: Job) -> Planned:
        """See `Executor`."""
        self._device = job.device
        return plan(job.out, source, job.config, job.labeller.load(), job.device, parent=job.parent)

    def run(self, work: Work) -> Iterator[ShardReport]:
        """See `Executor`."""
        planned = work.planned
        with ShardRunner(
            planned.dataset, planned.config, planned.loaded, self._device, parent=planned.parent
        ) as runner:
            reports = run_in_process(
                runner,
                map(int, np.flatnonzero(work.todo >= 0)),
                generation=lambda shard: int(work.todo[shard]),
                stop=work.stop,
                tick=lambda: work.running(runner.meter),
            )
            for report in reports:
                journal_shard(work.journal, report, steps=runner.meter.lap())
                yield report
            work.reporter.running(runner.meter)


def generate(
    source: Source, job: Job, reporter: Reporter, stop: threading.Event, executor: Executor | None = None
) -> tuple[Dataset, RunReport]:
    """Plan or resume, run what is left, and seal when all is committed."""
    executor = executor or InProcess()
    planned = executor.plan(source, job)
    todo = _todo(planned.dataset, planned.dataset.generations())
    if np.any(todo > 0):
        planned.dataset.unseal()
    return planned.dataset, _run(executor, planned, todo, reporter, stop)


def retry_quarantined(
    source: Source, job: Job, reporter: Reporter, stop: threading.Event, executor: Executor | None = None
) -> tuple[Dataset, RunReport]:
    """Compute again the shards that hold a quarantined image which can be read by now.

    A shard is replaced whole, under a new generation of its commit: its bytes are then those of a run in which the
    image had been good from the start. The data set is unsealed meanwhile.
    """
    executor = executor or InProcess()
    planned = executor.plan(source, job)
    generations = planned.dataset.generations()
    todo = _todo(planned.dataset, generations)
    for commit in planned.dataset.commits(generations):
        if todo[commit.shard_id] < 0 and commit.counts.quarantined and _any_readable(planned, commit):
            todo[commit.shard_id] = commit.generation + 1
    if np.any(todo > 0):
        planned.dataset.unseal()
    return planned.dataset, _run(executor, planned, todo, reporter, stop)


def journal_shard(journal: Journal, report: ShardReport, **by: object) -> None:
    """One line for a committed shard; `by` says who made it."""
    journal.write(
        "shard_committed",
        shard=report.shard_id,
        seconds=round(report.seconds, 3),
        **report.counts.model_dump(),
        **by,
    )


def _todo(dataset: Dataset, generations: Generations) -> Generations:
    """Generation 0 where there is no commit, the next one where files of the commit are gone."""
    todo = np.where(generations < 0, 0, -1).astype(np.int16)
    for shard_id in incomplete_shards(dataset, generations):
        log.warning("shard %d lacks files that its commit names: computing it anew", shard_id)
        todo[shard_id] = generations[shard_id] + 1
    return todo


def _run(
    executor: Executor, planned: Planned, todo: Generations, reporter: Reporter, stop: threading.Event
) -> RunReport:
    dataset, shards = planned.dataset, int(np.count_nonzero(todo >= 0))
    reporter.planned(planned, shards)
    if not shards:
        return finish(dataset, 0)
    done = 0
    about = {"executor": type(executor).__name__, "shards": shards, "code_version": __version__}
    with watch_drain(dataset, stop) as drain, Journal(dataset.store, **about) as journal:
        for shard in executor.run(Work(planned, todo, reporter, journal, stop)):
            done += 1
            reporter.committed(shard)
        report = finish(dataset, done)
        journal.write("run_ended", shards_done=done, shards_left=report.shards_left, drained=drain.seen)
        return replace(report, drained=drain.seen)


def _any_readable(planned: Planned, commit: ShardCommit) -> bool:
    images = planned.dataset.read_images(commit).select(["image_id", "status", "reason", "sha256"]).to_pylist()
    quarantined = {row["image_id"]: row for row in images if row["status"] == "quarantined"}
    decode, admit = planned.config.decode, planned.loaded.admission(planned.config)
    for ref in planned.dataset.read_inputs(commit.shard_id):
        row = quarantined.get(ref.image_id)
        if row is None:
            continue
        if row["reason"] == "crashed":  # not to be decoded here: only another file is worth a try
            if _sha256(ref, decode.max_bytes) not in (None, row["sha256"]):
                return True
        elif not isinstance(load_image(ref, decode, admit), ImageRecord):
            return True
    return False


def _sha256(ref: ImageRef, max_bytes: int) -> str | None:
    try:
        return hashlib.sha256(read_image_bytes(ref, max_bytes)).hexdigest()
    except BadImage:
        return None
