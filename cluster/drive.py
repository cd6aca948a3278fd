"""The loop between the scheduler and a pool of workers: feed, grow, shrink, and hear what became of it."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from ..schemas.cluster import Workers
from ..schemas.errors import TransientError, UserError
from .scheduler import RunShard, Scheduler, Task

MAX_DEATHS_AT_START = 3  # in a row, before the workers themselves are taken to be broken
GIVE_UP_AFTER = 3  # failed shards without one that succeeded


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker has loaded its weights; `about` says what it is."""

    worker: int
    about: Any


@dataclass(frozen=True, slots=True)
class Done:
    """A task succeeded with a result."""

    worker: int
    task: Task
    result: Any


@dataclass(frozen=True, slots=True)
class Raised:
    """A task raised (None: the worker's start did); the worker lives."""

    worker: int
    task: Task | None
    error: Exception


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker died, or cannot be reached any more; nothing more will be heard of it.

    `with_node` says that its node went, which tells nothing about the worker.
    """

    worker: int
    error: str
    with_node: bool = False


@dataclass(frozen=True, slots=True)
class Released:
    """A worker was let go, since nothing was left for it."""

    worker: int


Event = Ready | Done | Raised | Lost | Released


class Pool(Protocol):
    """Workers by number. A worker is used until its first death; another takes its place."""

    def start(self) -> int:
        """Ask for a worker; Ready follows when there is room for it."""

    def submit(self, worker: int, task: Task) -> None:
        """Begin a task."""

    def wait(self, timeout: float) -> list[Event]:
        """What happened since, at once if something did."""

    def release(self, worker: int) -> None:
        """Let a worker go, after it has freed its device."""


def drive(
    scheduler: Scheduler,
    pool: Pool,
    workers: Workers,
    *,
    stop: threading.Event,
    tick: Callable[["Crew"], None],
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Event]:
    """Run all that the scheduler has and give every event as it comes.

    `stop` lets the shards in flight finish and starts no more. Raises UserError if a worker cannot start, if none
    gets a place in `workers.start_timeout` seconds, or if a shard raises one that will not pass: the user must act.
    """
    crew = Crew(pool, workers, clock)
    while not scheduler.finished:
        if stop.is_set():
            scheduler.stop()
        crew.grow(scheduler)
        for worker in list(crew.ready):
            while (task := scheduler.take(worker)) is not None:
                pool.submit(worker, task)
            if scheduler.idle(worker) and not scheduler.waiting:
                crew.release(worker)
                yield Released(worker)
        for event in pool.wait(0.2):
            crew.hear(event)
            _account(scheduler, event)
            yield event
        crew.check_start()
        tick(crew)


def _account(scheduler: Scheduler, event: Event) -> None:
    match event:
        case Done(worker, task):
            scheduler.done(worker, task)
        case Lost(worker, error, _):
            scheduler.lost(worker, error)
        case Raised(worker, task, error) if task is not None:
            if isinstance(error, UserError) and not isinstance(error, TransientError):
                raise error
            scheduler.raised(worker, task, f"{type(error).__name__}: {error}")
        case _:
            return
    if not scheduler.succeeded and len(scheduler.failed) >= GIVE_UP_AFTER:
        shard_id, reason = next(iter(scheduler.failed.items()))
        raise UserError(
            f"The first {len(scheduler.failed)} shards all failed (shard {shard_id}: {reason}): repair that, and run "
            "the same command again."
        )


class Crew:
    """The workers that are starting and ready, and how many there should be."""

    def __init__(self, pool: Pool, workers: Workers, clock: Callable[[], float]) -> None:
        self.ready: dict[int, Any] = {}
        self.starting: set[int] = set()
        self._pool = pool
        self._workers = workers
        self._clock = clock
        self._since = clock()  # without any worker
        self._deaths = 0

    def grow(self, scheduler: Scheduler) -> None:
        """Ask for workers while shards wait: the minimum at once, then as many again as are ready, up to the maximum.

        What is asked for and has no room stays pending, and that is what an autoscaler acts on.
        """
        if not scheduler.waiting:
            return
        pending = max(self._workers.min_workers - len(self.ready), len(self.ready), 1)
        room = self._workers.max_workers - len(self.ready)
        while len(self.starting) < min(pending, room, scheduler.waiting):
            self.starting.add(self._pool.start())

    def release(self, worker: int) -> None:
        """Let an idle worker go, so that its node can idle out."""
        del self.ready[worker]
        self._pool.release(worker)

    def hear(self, event: Event) -> None:
        """Keep count of the workers."""
        match event:
            case Ready(worker, about):
                self.starting.discard(worker)
                self.ready[worker] = about
                self._deaths = 0
            case Raised(worker, None, error):
                raise error
            case Lost(worker, reason, with_node):
                self.ready.pop(worker, None)
                if worker in self.starting:
                    self.starting.discard(worker)
                    self._deaths += not with_node
                    if self._deaths >= MAX_DEATHS_AT_START:
                        raise UserError(
                            f"Workers die as they start ({reason}): check that every node runs the same image, and "
                            "run `saliency-prompt cluster check`."
                        )
                if not self.ready:
                    self._since = self._clock()
            case _:
                pass

    def check_start(self) -> None:
        """Raise UserError if there has been no worker for too long."""
        if self.ready or not self.starting or self._clock() - self._since < self._workers.start_timeout:
            return
        raise UserError(
            f"No worker got a place in {self._workers.start_timeout:.0f} s (each wants {self._workers.describe()}): "
            "add nodes, ask for less, or see what the cluster has with `saliency-prompt cluster check`."
        )


def shard_of(event: Event) -> int | None:
    """The shard that a finished task was about."""
    return event.task.shard_id if isinstance(event, Done | Raised) and isinstance(event.task, RunShard) else None
