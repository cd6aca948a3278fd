"""Workers as Ray actors: the `Pool` that the loop drives."""

import logging
from typing import Any

import numpy.typing as npt

from ..schemas.cluster import Workers
from .actor import ShardActor, WorkerSetup
from .drive import Done, Event, Lost, Raised, Ready
from .scheduler import IN_FLIGHT, Task
from .session import check_versions, load_ray, versions

NODE_DIED = "node has died"  # Ray has no other sign of it
TEARDOWN_SECONDS = 20.0  # for the shards in flight to be given up and the device to be freed

log = logging.getLogger(__name__)

# Freed activations are kept for the next batch instead of being given back page by page.
ALLOCATOR = {
    "MALLOC_TRIM_THRESHOLD_": "2147483647",
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TOP_PAD_": "268435456",
    "MALLOC_ARENA_MAX": "1",
}


class RayPool:
    """One actor per worker, spread over the nodes.

    Ray neither restarts an actor nor retries a call here: a worker is used until its first failure, and then killed
    and replaced by one that is not fed before it has told that it is ready. So there is never a call to an actor
    that is coming back, every death is counted once, and the new worker may come up on another node.
    """

    def __init__(
        self, workers: Workers, setup: WorkerSetup, generations: npt.NDArray[Any], env: dict[str, str] | None = None
    ) -> None:
        self._ray = load_ray()
        self._setup = setup
        self._generations = generations
        self._actor = self._ray.remote(ShardActor).options(
            num_gpus=workers.gpus_per_worker,
            num_cpus=workers.cpus_per_worker,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=IN_FLIGHT + 1,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": {**ALLOCATOR, **(env or {})}},
        )
        self._versions = versions()
        self._handles: dict[int, Any] = {}
        self._refs: dict[Any, tuple[int, Task | None]] = {}
        self._leaving: list[tuple[Any, Any]] = []
        self._count = 0

    def start(self) -> int:
        """See `Pool`."""
        self._count += 1
        handle = self._actor.remote()
        self._handles[self._count] = handle
        self._refs[handle.setup.remote(self._setup)] = (self._count, None)
        return self._count

    def submit(self, worker: int, task: Task) -> None:
        """See `Pool`."""
        generation = int(self._generations[task.shard_id])
        self._refs[self._handles[worker].do.remote(task, generation)] = (worker, task)

    def wait(self, timeout: float) -> list[Event]:
        """See `Pool`."""
        self._let_go(0.0)
        ready, _ = self._ray.wait(list(self._refs), num_returns=1, timeout=timeout) if self._refs else ([], [])
        if ready:
            ready, _ = self._ray.wait(list(self._refs), num_returns=len(self._refs), timeout=0)
        return [event for ref in ready if ref in self._refs and (event := self._event(ref)) is not None]

    def release(self, worker: int) -> None:
        """See `Pool`."""
        handle = self._handles.pop(worker)
        self._leaving.append((handle.teardown.remote(), handle))

    def close(self) -> None:
        """Let all workers go, giving up what they have in flight."""
        for worker in [worker for worker, task in self._refs.values() if task is None]:
            self._ray.kill(self._handles.pop(worker))  # not ready yet: it may have no place to be torn down in
        self._refs.clear()
        for worker in list(self._handles):
            self.release(worker)
        self._let_go(TEARDOWN_SECONDS)
        for _, handle in self._leaving:
            self._ray.kill(handle)

    def _let_go(self, timeout: float) -> None:
        """Kill actors that have freed their devices: a kill alone would leave that to the driver."""
        if not self._leaving:
            return
        gone, _ = self._ray.wait([ref for ref, _ in self._leaving], num_returns=len(self._leaving), timeout=timeout)
        for ref, handle in list(self._leaving):
            if ref in gone:
                self._ray.kill(handle)
                self._leaving.remove((ref, handle))

    def _event(self, ref: Any) -> Event | None:
        worker, task = self._refs.pop(ref)
        errors = self._ray.exceptions
        try:
            value = self._ray.get(ref)
        except errors.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            return Raised(worker, task, cause)
        except errors.RayError as error:
            what = " ".join(str(error).partition("Some common causes")[0].split())
            return self._lost(worker, f"{type(error).__name__}: {what[:500]}")
        if task is not None:
            return Done(worker, task, value)
        check_versions(self._versions, value.versions, value.host)
        return Ready(worker, value)

    def _lost(self, worker: int, error: str) -> Lost:
        """Forget a worker with all its calls; killed, in case that it only cannot be reached."""
        self._ray.kill(self._handles.pop(worker))
        for ref in [ref for ref, (owner, _) in self._refs.items() if owner == worker]:
            del self._refs[ref]
        log.warning("worker %d is lost: %s", worker, error)
        return Lost(worker, error, with_node=NODE_DIED in error)
