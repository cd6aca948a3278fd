"""The runs on a data set as their journals tell: which are alive, how fast, and how the last one ended."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ..store.dataset import Dataset
from .journal import PULSE_SECONDS, journal_keys, read_part

ALIVE_SECONDS = 4 * PULSE_SECONDS  # without a sign of life for longer, a run is taken for dead
RATE_SECONDS = 600.0  # the rate is that of the last ten minutes


@dataclass(frozen=True, slots=True)
class RunState:
    """One run. `ended` is empty while it goes on, else how it ended in a few words; times in s since the epoch."""

    run_id: str
    executor: str
    started: float
    last_sign: float
    workers: int
    workers_lost: int
    shards_failed: int
    images_per_second: float
    ended: str

    def alive(self, now: float) -> bool:
        """Whether the run seems to go on."""
        return not self.ended and now - self.last_sign < ALIVE_SECONDS


def runs(dataset: Dataset, now: float | None = None) -> list[RunState]:
    """The runs that are alive, in order of their beginning; if none is, the newest alone; empty if there was none.

    Reads only journals that were written to lately, or the newest one.
    """
    now = time.time() if now is None else now
    modified = {info.key: info.modified.timestamp() for info in dataset.store.list("runs")}
    groups = [list(keys) for _, keys in groupby(journal_keys(dataset), key=lambda key: key.split(".")[0])]
    recent = [keys for keys in groups if now - max(modified.get(key, 0.0) for key in keys) < ALIVE_SECONDS]
    told = [[event for key in keys for event in read_part(dataset, key)] for keys in recent or groups[-1:]]
    states = [run_state(events) for events in told if events]
    return [state for state in states if state.alive(now)] or states[-1:]


def run_state(events: Iterable[dict[str, Any]]) -> RunState:
    """What the events of one run add up to."""
    first: dict[str, Any] = {}
    ready: set[int] = set()
    lost = failed = 0
    ended = ""
    last = 0.0
    shards: list[tuple[float, int]] = []  # time of the commit and images
    for event in events:
        first = first or event
        last = event["time"]
        match event["event"]:
            case "worker_ready":
                ready.add(event["worker"])
            case "worker_lost":
                ready.discard(event["worker"])
                lost += 1
            case "worker_released":
                ready.discard(event["worker"])
            case "shard_committed":
                shards.append((last, event["images"]))
            case "shard_failed":
                failed += 1
            case "run_ended":
                ended = "drained" if event["drained"] else ("stopped" if event["shards_left"] else "all shards done")
            case "run_stopped":
                ended = event["error"]
    executor = first.get("executor", "")
    since = max(last - RATE_SECONDS, first["time"])
    images = sum(count for at, count in shards if at > since)
    return RunState(
        run_id=first["run"],
        executor=executor,
        started=first["time"],
        last_sign=last,
        workers=len(ready) if executor != "InProcess" else 1,
        workers_lost=lost,
        shards_failed=failed,
        images_per_second=images / (last - since) if last > since else 0.0,
        ended=ended,
    )
