"""Which shard goes to which worker next, and what a failure means. Bookkeeping alone: no Ray, no clock.

A shard that raises is tried again after all others, since the store or the network may have recovered by then. A
worker that dies takes its shards with it, and with several in flight nobody knows which of them was to blame: they
become suspects, which run alone, and only a shard that ran alone is charged with an attempt. After MAX_ATTEMPTS the
images of a suspect are probed, those that end their process are set aside, and the rest of the shard is computed.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .isolation import Isolation

MAX_ATTEMPTS = 3
IN_FLIGHT = 2  # shards per worker: one on the device while the next is read and the last is written


@dataclass(frozen=True, slots=True)
class RunShard:
    """Compute and commit a shard, without the images at the `crashed` positions. `attempt` counts from 1."""

    shard_id: int
    attempt: int
    crashed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ProbeImages:
    """Compute the images at positions [start, stop) of a shard and forget them, to see if the process survives."""

    shard_id: int
    start: int
    stop: int


Task = RunShard | ProbeImages


@dataclass(slots=True)
class _Worker:
    tasks: list[Task] = field(default_factory=list)
    alone: bool = False


class Scheduler:
    """Hands out `shards` in order. Memory grows with the failures and the workers, not with the shards.

    `images_in` gives the number of images of a shard. `failed` holds the shards that were given up, with the last
    error; `retries` counts the attempts after a first.
    """

    def __init__(
        self, shards: Sequence[int] | npt.NDArray[np.int32], images_in: Callable[[int], int], in_flight: int = IN_FLIGHT
    ) -> None:
        self.failed: dict[int, str] = {}
        self.retries = 0
        self.succeeded = 0
        self._fresh = shards
        self._begun = 0  # of the fresh ones
        self._images_in = images_in
        self._in_flight = in_flight
        self._raised: deque[int] = deque()
        self._suspects: deque[int] = deque()
        self._emptying: set[int] = set()  # workers that take no more until they can run a suspect alone
        self._attempts: dict[int, int] = {}
        self._isolations: dict[int, Isolation] = {}
        self._workers: dict[int, _Worker] = {}
        self._stopped = False

    @property
    def waiting(self) -> int:
        """Shards that wait for a worker."""
        if self._stopped:
            return 0
        return len(self._fresh) - self._begun + len(self._raised) + len(self._suspects)

    @property
    def finished(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self.waiting and not any(worker.tasks for worker in self._workers.values())

    def stop(self) -> None:
        """Hand out no more."""
        self._stopped = True

    def idle(self, worker: int) -> bool:
        """Whether a worker has nothing to do."""
        state = self._workers.get(worker)
        return state is None or not state.tasks

    def take(self, worker: int) -> Task | None:
        """The next task for a worker; None if it has enough, or there is none."""
        state = self._workers.setdefault(worker, _Worker())
        if not self.waiting or state.alone or len(state.tasks) >= self._in_flight:
            return None
        if self._suspects and not state.tasks:
            state.alone = True
            self._emptying.discard(worker)
            task = self._suspect_task(self._suspects.popleft())
        elif self._suspects and (worker in self._emptying or len(self._emptying) < len(self._suspects)):
            self._emptying.add(worker)
            return None
        elif self._begun < len(self._fresh):
            task = RunShard(int(self._fresh[self._begun]), 1)
            self._begun += 1
        elif self._raised:
            shard_id = self._raised.popleft()
            task = RunShard(shard_id, self._attempts[shard_id] + 1)
        else:
            return None
        state.tasks.append(task)
        return task

    def done(self, worker: int, task: Task) -> None:
        """A task succeeded."""
        self._remove(worker, task)
        if isinstance(task, ProbeImages):
            self._isolations[task.shard_id].survived()
            self._suspects.appendleft(task.shard_id)
            return
        self.succeeded += 1
        self._attempts.pop(task.shard_id, None)
        self._isolations.pop(task.shard_id, None)

    def raised(self, worker: int, task: Task, error: str) -> None:
        """A task raised an exception; its worker lives."""
        self._remove(worker, task)
        if self._charge(task.shard_id):
            self.failed[task.shard_id] = error
        else:
            self._raised.append(task.shard_id)

    def lost(self, worker: int, error: str) -> None:
        """A worker died."""
        tasks = self._workers.pop(worker, _Worker()).tasks
        self._emptying.discard(worker)
        if len(tasks) > 1:
            self._suspects.extend(task.shard_id for task in tasks)
            self.retries += len(tasks)
        for task in tasks if len(tasks) == 1 else ():
            self._blame(task, error)

    def _blame(self, task: Task, error: str) -> None:
        """A worker died on this task alone."""
        shard_id = task.shard_id
        if isinstance(task, ProbeImages):
            self._isolations[shard_id].lost()
            self.retries += 1
        elif self._charge(shard_id):
            if shard_id in self._isolations:
                self.failed[shard_id] = error
                return
            self._isolations[shard_id] = Isolation(self._images_in(shard_id))
            self._attempts[shard_id] = 0
            self.retries += 1
        self._suspects.append(shard_id)

    def _charge(self, shard_id: int) -> bool:
        """Count an attempt; whether it was the last."""
        self._attempts[shard_id] = self._attempts.get(shard_id, 0) + 1
        last = self._attempts[shard_id] >= MAX_ATTEMPTS
        self.retries += not last
        return last

    def _suspect_task(self, shard_id: int) -> Task:
        search = self._isolations.get(shard_id)
        if search is not None and search.current is not None:
            return ProbeImages(shard_id, *search.current)
        crashed = tuple(sorted(search.crashed)) if search is not None else ()
        return RunShard(shard_id, self._attempts.get(shard_id, 0) + 1, crashed)

    def _remove(self, worker: int, task: Task) -> None:
        state = self._workers[worker]
        state.tasks.remove(task)
        state.alone = False
