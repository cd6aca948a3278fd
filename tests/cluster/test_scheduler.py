"""The scheduler's promises on a pool that exists in the test alone."""

import random
import threading
import tracemalloc
from collections import Counter, deque
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saliency_prompt.cluster.drive import Crew, Done, Event, Lost, Raised, Ready, drive
from saliency_prompt.cluster.isolation import Isolation
from saliency_prompt.cluster.scheduler import MAX_ATTEMPTS, ProbeImages, RunShard, Scheduler, Task
from saliency_prompt.schemas.cluster import Workers
from saliency_prompt.schemas.errors import TransientError, UserError

IMAGES = 40


def survives(task: Task, poison: dict[int, set[int]]) -> bool:
    bad = poison.get(task.shard_id, set())
    if isinstance(task, ProbeImages):
        return not bad & set(range(task.start, task.stop))
    return bad <= set(task.crashed)


def suspicious(task: Task) -> bool:
    return isinstance(task, ProbeImages) or bool(task.crashed)


class FakePool:
    """Finishes one task at every `wait`; a task with poison kills its worker, and so does chance."""

    def __init__(
        self,
        poison: dict[int, set[int]] | None = None,
        *,
        seed: int = 0,
        accidents: int = 0,
        raises: Callable[[Task], Exception | None] = lambda _: None,
        room: int = 10**9,
    ) -> None:
        self.poison = poison or {}
        self.random = random.Random(seed)
        self.accidents = accidents
        self.raises = raises
        self.room = room
        self.count = 0
        self.running: dict[int, list[Task]] = {}
        self.most = 0
        self.pending: deque[int] = deque()
        self.ran: Counter[int] = Counter()

    def start(self) -> int:
        self.count += 1
        self.pending.append(self.count)
        return self.count

    def submit(self, worker: int, task: Task) -> None:
        tasks = self.running[worker]
        if any(suspicious(other) for other in tasks) or suspicious(task):
            assert not tasks, "a suspect runs alone"
        tasks.append(task)
        assert len(tasks) <= 2

    def wait(self, timeout: float) -> list[Event]:  # noqa: ARG002
        if self.pending and len(self.running) < self.room:
            self.running[self.pending[0]] = []
            self.most = max(self.most, len(self.running))
            return [Ready(self.pending.popleft(), None)]
        busy = [worker for worker, tasks in self.running.items() if tasks]
        if not busy:
            return []
        worker = self.random.choice(busy)
        task = self.running[worker][0]
        accident = self.accidents > 0 and self.random.random() < 0.3
        self.accidents -= accident
        if accident or not survives(task, self.poison):
            del self.running[worker]
            return [Lost(worker, "killed")]
        self.running[worker].remove(task)
        if (error := self.raises(task)) is not None:
            return [Raised(worker, task, error)]
        if isinstance(task, RunShard):
            self.ran[task.shard_id] += 1
        return [Done(worker, task, task)]

    def release(self, worker: int) -> None:
        assert not self.running.pop(worker)


def run(
    scheduler: Scheduler,
    pool: FakePool,
    *,
    low: int = 1,
    high: int = 3,
    stop: threading.Event | None = None,
    tick: Callable[[Crew], None] = lambda _: None,
    clock: Callable[[], float] = lambda: 0.0,
) -> list[Event]:
    workers = Workers(min_workers=low, max_workers=high, gpus_per_worker=0, start_timeout=5)
    return list(drive(scheduler, pool, workers, stop=stop or threading.Event(), tick=tick, clock=clock))


def finished(events: list[Event]) -> list[RunShard]:
    return [e.task for e in events if isinstance(e, Done) and isinstance(e.task, RunShard)]


def test_every_shard_once_in_order() -> None:
    pool = FakePool()
    events = run(Scheduler(range(20), lambda _: IMAGES), pool)
    assert pool.ran == Counter(range(20))
    assert len(finished(events)) == 20
    assert not any(pool.running.values())
    assert len(pool.running) <= 1  # the others were let go when nothing waited any more


@given(
    poison=st.dictionaries(st.integers(0, 11), st.sets(st.integers(0, IMAGES - 1), min_size=1, max_size=3), max_size=3),
    accidents=st.integers(0, 6),
    seed=st.integers(0, 1000),
    high=st.integers(1, 4),
)
def test_only_poison_is_set_aside_whatever_dies(
    poison: dict[int, set[int]], accidents: int, seed: int, high: int
) -> None:
    pool = FakePool(poison, seed=seed, accidents=accidents)
    scheduler = Scheduler(range(12), lambda _: IMAGES)
    events = run(scheduler, pool, high=high)
    assert set(scheduler.failed) | set(pool.ran) == set(range(12))
    assert len(scheduler.failed) <= accidents // MAX_ATTEMPTS
    assert set(pool.ran.values()) == {1}
    for task in finished(events):
        named, real = set(task.crashed), poison.get(task.shard_id, set())
        assert named >= real
        if accidents < 2:
            assert named == real  # an image is blamed for two deaths only


def test_neighbours_of_a_poison_shard_are_not_charged() -> None:
    events = run(Scheduler(range(8), lambda _: IMAGES), FakePool({3: {17}}), high=1)
    assert all(task.attempt == 1 for task in finished(events))
    assert {task.crashed for task in finished(events) if task.crashed} == {(17,)}
    deaths = sum(isinstance(event, Lost) for event in events)
    assert deaths <= 1 + MAX_ATTEMPTS + 2 + 2  # together, alone, two levels of parts, the image twice


@pytest.mark.parametrize("error", [OSError("no route"), TransientError("no route")])
def test_a_shard_that_raises_is_tried_last_and_then_given_up(error: Exception) -> None:
    def raises(task: Task) -> Exception | None:
        return error if task.shard_id == 2 else None

    scheduler = Scheduler(range(6), lambda _: IMAGES)
    events = run(scheduler, FakePool(raises=raises), high=1)
    assert scheduler.failed == {2: f"{type(error).__name__}: no route"}
    order = [e.task.shard_id for e in events if isinstance(e, Done | Raised) and e.task]
    assert order == [0, 1, 2, 3, 4, 5, 2, 2]


def test_the_run_stops_where_the_user_must_act() -> None:
    full = UserError("the disk is full")
    with pytest.raises(UserError, match="disk is full"):
        run(Scheduler(range(6), lambda _: 1), FakePool(raises=lambda t: full if t.shard_id == 3 else None))
    with pytest.raises(UserError, match=r"shards all failed .*boom"):
        run(Scheduler(range(50), lambda _: 1), FakePool(raises=lambda _: ValueError("boom")))


def test_a_worker_that_dies_as_it_starts_is_not_tried_for_ever() -> None:
    class Stillborn(FakePool):
        def wait(self, timeout: float) -> list[Event]:  # noqa: ARG002
            return [Lost(self.pending.popleft(), "no module named x")]

    pool = Stillborn()
    with pytest.raises(UserError, match="no module named x"):
        run(Scheduler(range(6), lambda _: 1), pool)
    assert pool.count <= 4


def test_nodes_that_go_while_workers_start_say_nothing_about_the_workers() -> None:
    class Unlucky(FakePool):
        losses = 7

        def wait(self, timeout: float) -> list[Event]:
            if self.losses and self.pending:
                self.losses -= 1
                return [Lost(self.pending.popleft(), "its node has died", with_node=True)]
            return super().wait(timeout)

    assert len(finished(run(Scheduler(range(6), lambda _: 1), Unlucky()))) == 6


def test_no_room_for_any_worker_is_said_after_a_while() -> None:
    times = iter(range(100))
    with pytest.raises(UserError, match="No worker got a place"):
        run(Scheduler(range(6), lambda _: 1), FakePool(room=0), clock=lambda: float(next(times)))


@pytest.mark.parametrize(("shards", "most"), [(100, 8), (3, 3)])
def test_the_pool_grows_to_what_is_of_use_and_shrinks_when_idle(shards: int, most: int) -> None:
    pool = FakePool(seed=1)
    sizes: list[int] = []
    run(Scheduler(range(shards), lambda _: 1), pool, low=2, high=8, tick=lambda crew: sizes.append(len(crew.ready)))
    assert 2 <= pool.most <= most
    assert max(sizes) == pool.most
    assert sizes[-1] <= 1


def test_stop_finishes_what_is_in_flight_and_starts_no_more() -> None:
    stop, pool = threading.Event(), FakePool()

    def tick(_: Crew) -> None:
        if len(pool.ran) >= 5:
            stop.set()

    run(Scheduler(range(1000), lambda _: 1), pool, high=3, stop=stop, tick=tick)
    assert 5 <= len(pool.ran) <= 5 + 2 * 3
    assert not any(pool.running.values())


@given(st.integers(1, 3000), st.data())
def test_isolation_names_exactly_the_poison(n_images: int, data: st.DataObject) -> None:
    poison = data.draw(st.sets(st.integers(0, n_images - 1), max_size=4))
    search, steps = Isolation(n_images), 0
    while search.current is not None:
        start, stop = search.current
        assert 0 <= start < stop <= n_images
        (search.lost if poison & set(range(start, stop)) else search.survived)()
        steps += 1
    assert set(search.crashed) == poison
    assert steps <= 16 + len(poison) * 60


def test_memory_does_not_grow_with_the_shards() -> None:
    def peak(shards: int) -> int:
        ids = np.arange(shards, dtype=np.int32)
        tracemalloc.start()
        scheduler = Scheduler(ids, lambda _: 1024)
        given_out: deque[tuple[int, Task]] = deque()
        while True:
            for worker in range(8):
                while task := scheduler.take(worker):
                    given_out.append((worker, task))
            if not given_out:
                break
            scheduler.done(*given_out.popleft())
        assert scheduler.succeeded == shards
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(20_000) < peak(2_000) + 20_000  # bytes: one per shard would already show
