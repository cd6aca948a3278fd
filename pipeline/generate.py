"""The main job: photographs in, a sealed data set of pseudo-masks and prompt vectors out."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch

from ..schemas.config import Config
from ..schemas.manifest import ShardCommit
from ..stages.backbone import LoadedBackbone, load_backbone
from ..stages.decode import DecodedImage
from ..store.dataset import Dataset
from .engine import Meter, load_image
from .plan import Planned, plan
from .run import RunReport, ShardReport, ShardRunner, finish, run_in_process, unfinished
from .sources import Source


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
    """What `generate` needs beside the source: where to, how, and on what."""

    out: str
    config: Config
    device: torch.device


def load(config: Config) -> LoadedBackbone:
    """The configured backbone, its weights fetched and checked."""
    features = config.features
    return load_backbone(features.weights, arch=features.arch, stride_in_1x1=features.stride_in_1x1, seed=features.seed)


def generate(source: Source, job: Job, reporter: Reporter, stop: threading.Event) -> tuple[Dataset, RunReport]:
    """Plan or resume, run what is left, and seal when all is committed."""
    backbone = load(job.config)
    planned = plan(job.out, source, job.config, backbone, job.device)
    shards = unfinished(planned.dataset)
    reporter.planned(planned, len(shards))
    return planned.dataset, _run(planned, backbone, job.device, dict.fromkeys(shards, 0), reporter, stop)


def retry_quarantined(source: Source, job: Job, reporter: Reporter, stop: threading.Event) -> tuple[Dataset, RunReport]:
    """Compute again the shards that hold a quarantined image which can be read by now.

    A shard is replaced whole, under a new generation of its commit: its bytes are then those of a run in which the
    image had been good from the start. The data set is unsealed meanwhile.
    """
    backbone = load(job.config)
    planned = plan(job.out, source, job.config, backbone, job.device)
    generations = {
        commit.shard_id: commit.generation + 1
        for commit in planned.dataset.commits()
        if commit.counts.quarantined and _any_readable(planned, commit)
    }
    if generations:
        planned.dataset.unseal()
    generations |= dict.fromkeys(unfinished(planned.dataset), 0)
    reporter.planned(planned, len(generations))
    return planned.dataset, _run(planned, backbone, job.device, generations, reporter, stop)


def _run(
    planned: Planned,
    backbone: LoadedBackbone,
    device: torch.device,
    generations: dict[int, int],
    reporter: Reporter,
    stop: threading.Event,
) -> RunReport:
    if not generations:
        return finish(planned.dataset, 0)
    done = 0
    with ShardRunner(planned.dataset, planned.config, backbone, device) as runner:
        reports: Iterable[ShardReport] = run_in_process(
            runner,
            generations,
            generation=generations.__getitem__,
            stop=stop,
            tick=lambda: reporter.running(runner.meter),
        )
        for report in reports:
            done += 1
            reporter.committed(report)
        reporter.running(runner.meter)
    return finish(planned.dataset, done)


def _any_readable(planned: Planned, commit: ShardCommit) -> bool:
    images = planned.dataset.read_images(commit)
    rows = zip(images["image_id"].to_pylist(), images["status"].to_pylist(), strict=True)
    quarantined = {image_id for image_id, status in rows if status == "quarantined"}
    for ref in planned.dataset.read_inputs(commit.shard_id):
        if ref.image_id in quarantined and isinstance(load_image(ref, planned.config), DecodedImage):
            return True
    return False
