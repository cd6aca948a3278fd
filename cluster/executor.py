"""The main job on Ray: plans for the workers' hardware and runs the shards on a pool of them."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..pipeline.engine import Meter
from ..pipeline.generate import Job, Work, journal_shard
from ..pipeline.labeller import Labeller
from ..pipeline.plan import Planned, device_class, plan, resolve_config
from ..pipeline.run import ShardReport
from ..pipeline.sources import Source
from ..schemas.cluster import Workers
from ..schemas.errors import UserError
from ..schemas.labels.base import LabelConfig
from ..stages.device import resolve_device
from ..store.layout import CARD
from ..store.objects import open_store
from .actor import WorkerSetup, threads_of
from .drive import Crew, Done, Event, Lost, Raised, Ready, Released, drive
from .metrics import Progress, RunMetrics
from .pool import RayPool
from .scheduler import Scheduler
from .session import load_ray, session

log = logging.getLogger(__name__)


class RayExecutor:
    """An `Executor` on the Ray cluster at an address (`local` starts one here). Use as a context manager.

    `env` are environment variables for the workers beside their nodes' own. With `cpu`, workers compute on the CPU
    whatever GPUs they hold.
    """

    def __init__(self, address: str, workers: Workers, env: dict[str, str] | None = None, *, cpu: bool = False) -> None:
        self._address = address
        self._workers = workers
        self._gpu = workers.gpus_per_worker > 0 and not cpu
        self._env = env or {}
        self._stack = ExitStack()
        self._labeller: Labeller | None = None

    def __enter__(self) -> "RayExecutor":
        self._stack.enter_context(session(self._address, self._workers))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def plan(self, source: Source, job: Job) -> Planned:
        """Plan or find the data set; what `auto` stands for is asked of a worker, since this machine may be another."""
        loaded = job.labeller.load()
        config, hardware = job.config, None
        if not open_store(job.out).exists(CARD):
            config, hardware = self._resolve(config, loaded.facts)
        self._labeller = job.labeller
        return plan(job.out, source, config, loaded, torch.device("cpu"), hardware, job.parent)

    def run(self, work: Work) -> Iterator[ShardReport]:
        """See `Executor`. Raises UserError at the end if shards were given up."""
        assert self._labeller is not None, "planned first"
        card = work.planned.dataset.card
        setup = WorkerSetup(
            url=work.planned.dataset.url,
            labeller=replace(self._labeller, config=work.planned.config),
            parent=None if work.planned.parent is None else work.planned.parent.url,
            gpu=self._gpu,
            cores=self._workers.cpus_per_worker,
            threads=threads_of(card.device),
        )
        last = card.n_images - (card.n_shards - 1) * card.shard_size
        scheduler = Scheduler(
            np.flatnonzero(work.todo >= 0).astype(np.int32),
            lambda shard: last if shard == card.n_shards - 1 else card.shard_size,
        )
        with closing(RayPool(self._workers, setup, work.todo, self._env)) as pool:
            yield from _follow(scheduler, pool, self._workers, work)
        if scheduler.failed:
            raise _given_up(scheduler)

    def _resolve(self, config: LabelConfig, facts: Mapping[str, Any]) -> tuple[LabelConfig, str]:
        """What `auto` stands for on a worker, and its device class."""
        if not self._gpu:
            resolved = resolve_config(config, facts, torch.device("cpu"))
            return resolved, f"cpu, {self._workers.cpus_per_worker} threads"
        ray = load_ray()
        task = ray.remote(_resolve_here).options(
            num_gpus=self._workers.gpus_per_worker, num_cpus=1, max_retries=3, runtime_env={"env_vars": self._env}
        )
        try:
            found: tuple[LabelConfig, str] = ray.get(
                task.remote(config, dict(facts)), timeout=self._workers.start_timeout
            )
        except ray.exceptions.GetTimeoutError:
            raise UserError(
                f"No node with {self._workers.gpus_per_worker:g} free GPU was found in "
                f"{self._workers.start_timeout:.0f} s: add GPU nodes, or take --gpus-per-worker 0 for CPU workers."
            ) from None
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, UserError) else error) from None
        return found


def _resolve_here(config: LabelConfig, facts: Mapping[str, Any]) -> tuple[LabelConfig, str]:
    device = resolve_device("cuda:0")
    return resolve_config(config, facts, device), device_class(device)


def _follow(scheduler: Scheduler, pool: RayPool, workers: Workers, work: Work) -> Iterator[ShardReport]:
    """Drive the pool; journal, count and show every event, and pass on the reports."""
    meter, metrics, failed = Meter(), RunMetrics(), set[int]()

    def tick(crew: Crew) -> None:
        work.running(meter)
        metrics.state(
            Progress(scheduler.waiting, scheduler.retries, len(scheduler.failed), len(crew.ready), len(crew.starting))
        )

    for event in drive(scheduler, pool, workers, stop=work.stop, tick=tick):
        _journal(work, event)
        for shard in scheduler.failed.keys() - failed:
            failed.add(shard)
            work.journal.write("shard_failed", shard=shard, error=scheduler.failed[shard])
        if isinstance(event, Done) and event.result is not None:
            report: ShardReport = event.result.report
            meter.add(report.counts)
            metrics.committed(report.counts)
            yield report


def _journal(work: Work, event: Event) -> None:
    match event:
        case Ready(worker, about):
            work.journal.write("worker_ready", worker=worker, host=about.host, pid=about.pid, device=about.device)
        case Released(worker):
            work.journal.write("worker_released", worker=worker)
        case Lost(worker, error, _):
            work.journal.write("worker_lost", worker=worker, error=error)
        case Raised(worker, task, error):
            shard = None if task is None else task.shard_id
            work.journal.write("shard_raised", worker=worker, shard=shard, error=f"{type(error).__name__}: {error}")
        case Done(worker, task, result) if result is not None:
            by = {"worker": worker, "attempt": result.attempt, "host": result.host, "pid": result.pid}
            journal_shard(work.journal, result.report, **by, steps=result.steps)


def _given_up(scheduler: Scheduler) -> UserError:
    shards = sorted(scheduler.failed)
    listed = ", ".join(map(str, shards[:10])) + (" and more" if len(shards) > 10 else "")
    return UserError(
        f"{len(shards)} shards failed and the others are done (shards {listed}; {scheduler.failed[shards[0]]}): repair "
        "that, and run the same command again."
    )
