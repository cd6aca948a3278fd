"""Training in several processes on several machines, by Ray Train; the group starts again if one is lost.

All state is in the run's folder, which every node must see: checkpoints, what the driver is told, the wish to stop.
"""

import json
import logging
import os
import shutil
import socket
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path
from threading import Event
from typing import Any
from uuid import uuid4

from ..pipeline.training.job import TrainingJob
from ..schemas.cluster import Workers
from ..schemas.errors import UserError
from ..stages.training.callbacks.curves import Progress
from ..stages.training.fit import Control, Outcome, Place
from .session import check_versions, load_ray, session, versions

MAX_LOSSES = 5  # in a row without a step forward
LOOK_EVERY = 0.5  # seconds
SCRATCH = "ray_train"

log = logging.getLogger(__name__)


class StopFile(Event):
    """An event that a file sets, so that it reaches other machines."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def is_set(self) -> bool:
        """Whether the file is there."""
        return super().is_set() or self._path.exists()


def train_on_ray(job: TrainingJob, address: str, workers: Workers, control: Control) -> Outcome:
    """`job.run` in `workers.min_workers` processes, and what the first returns; every node must see all its paths.

    A group that loses a process starts again from the newest checkpoint, up to MAX_LOSSES times without news in
    between. Raises the UserError of any process.
    """
    job = job.absolute()
    job.out.mkdir(parents=True, exist_ok=True)
    losses = 0
    with session(address, workers):
        while True:
            news = _News(job.out)
            try:
                return _one_group(job, workers, news, control)
            except _GroupLostError as error:
                losses = 1 if news.read_any else losses + 1
                if losses >= MAX_LOSSES or control.stop.is_set():
                    raise UserError(
                        f"The training processes died {losses} times in a row ({error}): see Ray's logs, and run the "
                        "same command again."
                    ) from None
                log.warning("the training group was lost (%s): starting it again from the last checkpoint", error)


class _GroupLostError(Exception):
    """A process died, or raised what the user cannot mend."""


class _News:
    """What the first process tells, as a file in the run's folder."""

    def __init__(self, run: Path) -> None:
        self.path = run / "news.json"
        self.stop = run / "stop"
        self._seen: bytes = b""

    @property
    def read_any(self) -> bool:
        """Whether there was news so far."""
        return bool(self._seen)

    def clear(self) -> None:
        for path in (self.path, self.stop):
            path.unlink(missing_ok=True)

    def tell(self, news: dict[str, Any]) -> None:
        part = self.path.with_suffix(f".{uuid4().hex}")
        part.write_text(json.dumps(news))
        os.replace(part, self.path)

    def read(self) -> dict[str, Any] | None:
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return None
        if text == self._seen:
            return None
        self._seen = text
        news: dict[str, Any] = json.loads(text)
        return news


def _one_group(job: TrainingJob, workers: Workers, news: _News, control: Control) -> Outcome:
    news.clear()
    # In a thread, since Ray Train would take over Ctrl-C in the main one.
    with ThreadPoolExecutor(1, thread_name_prefix="ray-train") as pool:
        future: Future[Outcome] = pool.submit(_fit, job, workers, control.max_steps)
        try:
            while not wait([future], timeout=LOOK_EVERY).done:
                if control.stop.is_set() and not news.stop.exists():
                    news.stop.touch()
                _pass_on(news, control)
            _pass_on(news, control)
            return _result(future)
        finally:
            news.clear()
            shutil.rmtree(job.out / SCRATCH, ignore_errors=True)


def _pass_on(news: _News, control: Control) -> None:
    if (told := news.read()) is not None:
        control.report(Progress(**told))


def _fit(job: TrainingJob, workers: Workers, max_steps: int | None) -> Any:
    load_ray()
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    gpus = workers.gpus_per_worker
    mine = versions()

    def member() -> Any:
        return _enter(job, mine, max_steps)

    trainer = TorchTrainer(
        member,
        scaling_config=ScalingConfig(
            num_workers=workers.min_workers,
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": workers.cpus_per_worker, **({"GPU": gpus} if gpus else {})},
        ),
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        run_config=RunConfig(
            name=uuid4().hex, storage_path=str(job.out / SCRATCH), failure_config=FailureConfig(max_failures=0)
        ),
    )
    result: Any = trainer.fit()
    return result.return_value


def _enter(job: TrainingJob, mine: dict[str, str], max_steps: int | None) -> Outcome:
    """One process of the group."""
    import ray.train.torch
    from lightning.pytorch.strategies import DDPStrategy
    from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment

    check_versions(mine, versions(), socket.gethostname())
    device = ray.train.torch.get_device()
    context = ray.train.get_context()
    news = _News(job.out)
    # Buffers are the same everywhere: sending them around at every step would be for nothing.
    strategy: DDPStrategy = RayDDPStrategy(broadcast_buffers=False)  # type: ignore[no-untyped-call]
    options = {
        "accelerator": "gpu" if device.type == "cuda" else "cpu",
        "devices": "auto" if device.type == "cuda" else context.get_local_world_size(),
        "num_nodes": 1,
        "strategy": strategy,
        "plugins": [RayLightningEnvironment()],  # type: ignore[no-untyped-call]
    }
    first = context.get_world_rank() == 0

    def report(progress: Progress) -> None:
        if first:
            news.tell(asdict(progress))

    place = Place(device, context.get_world_size(), options)
    return job.run(place, Control(StopFile(news.stop), report, max_steps))


def _result(future: Future[Outcome]) -> Outcome:
    from ray.train import TrainingFailedError, WorkerGroupError

    try:
        return future.result()
    except WorkerGroupError as error:
        for failure in error.worker_failures.values():
            cause: BaseException | None = failure
            while cause is not None:
                if isinstance(cause, UserError):
                    raise cause from None
                cause = cause.__cause__ or getattr(cause, "cause", None)
        text = str(next(iter(error.worker_failures.values()), error))
        raise _GroupLostError(" ".join(text.split())[:300]) from None
    except TrainingFailedError as error:
        raise _GroupLostError(" ".join(str(error).split())[:300]) from None
