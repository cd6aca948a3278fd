"""The worker process: one device, one engine, weights loaded once, a few shards at a time."""

import gc
import logging
import os
import re
import socket
from dataclasses import dataclass
from typing import Any

import torch

from ..pipeline.labeller import Labeller
from ..pipeline.parent import open_parent
from ..pipeline.plan import device_class
from ..pipeline.process import tune_allocator
from ..pipeline.run import ShardReport, ShardRunner
from ..schemas.errors import UserError
from ..schemas.manifest import fingerprint
from ..schemas.section import identity
from ..stages.device import resolve_device
from ..store.dataset import Dataset
from .logs import log_as_json
from .metrics import WorkerMetrics
from .scheduler import ProbeImages, RunShard, Task
from .session import versions

log = logging.getLogger(__name__)

_EXIT_CUDA = 70  # a CUDA error leaves the process unusable


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """What a worker is started with.

    `threads` is torch's number of CPU threads: it shows in the bits of fp32. `parent` is where the data set is that
    this one is made from.
    """

    url: str
    labeller: Labeller
    gpu: bool
    cores: int
    threads: int | None
    parent: str | None


@dataclass(frozen=True, slots=True)
class About:
    """Who a worker is."""

    host: str
    pid: int
    device: str
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class ShardResult:
    """The report of a shard and who made it; `steps` are thread seconds by step since the worker's last report."""

    report: ShardReport
    attempt: int
    host: str
    pid: int
    steps: dict[str, float]


def threads_of(device: str) -> int | None:
    """CPU threads of torch in a recorded device class."""
    match = re.fullmatch(r"cpu, (\d+) threads", device)
    return int(match[1]) if match else None


class ShardActor:
    """Becomes a Ray actor whose methods run in several threads. `setup` must have returned before the others."""

    def __init__(self) -> None:
        tune_allocator()
        log_as_json()

    def setup(self, setup: WorkerSetup) -> About:
        """Load the weights, start the engine. Raises UserError if the node lacks what it needs."""
        if setup.threads is not None:
            torch.set_num_threads(setup.threads)
        host = socket.gethostname()
        if setup.gpu and not torch.cuda.is_available():
            raise UserError(
                f"The node {host} offers a GPU but torch sees none: check its driver and the image, or take "
                "--gpus-per-worker 0."
            )
        device = resolve_device("cuda:0" if setup.gpu else "cpu")
        dataset = Dataset.open(setup.url)
        try:
            loaded = setup.labeller.load()
        except UserError as error:
            raise UserError(f"On the node {host}: {error}") from None
        config = setup.labeller.config
        if fingerprint(identity(config), loaded.weights_sha256, dataset.card.parent) != dataset.card.fingerprint:
            raise UserError(
                f"The weights {loaded.weights} on the node {host} are not those of {dataset.url}: put the same file "
                "on every node."
            )
        parent = None if setup.parent is None else open_parent(setup.parent, dataset.card.parent)
        self._runner = ShardRunner(dataset, config, loaded, device, setup.cores, parent)
        self._metrics = WorkerMetrics(self._runner.meter)
        return About(host, os.getpid(), device_class(device), versions())

    def do(self, task: Task, generation: int) -> ShardResult | None:
        """Run a shard, or probe some of its images."""
        try:
            if isinstance(task, ProbeImages):
                self._runner.probe(task.shard_id, task.start, task.stop)
                return None
            return self._run(task, generation)
        except RuntimeError as error:
            if "CUDA error" in str(error):
                log.critical("the CUDA context is lost", extra={"shard": task.shard_id, "error": str(error)})
                os._exit(_EXIT_CUDA)
            raise

    def teardown(self) -> None:
        """Stop the threads and free the device, so that the next process on it finds it empty."""
        self._runner.close()
        del self._runner
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            torch.cuda.empty_cache()

    def _run(self, task: RunShard, generation: int) -> ShardResult:
        ids: dict[str, Any] = {"shard": task.shard_id, "attempt": task.attempt}
        log.info("shard begun", extra=ids)
        report = self._runner.run_shard(task.shard_id, generation, task.crashed)
        steps = self._runner.meter.lap()
        self._metrics.export()
        log.info("shard committed", extra={**ids, "seconds": round(report.seconds, 3), **report.counts.model_dump()})
        return ShardResult(report, task.attempt, socket.gethostname(), os.getpid(), steps)
