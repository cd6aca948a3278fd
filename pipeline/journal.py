"""The journal of a run: JSON lines beside the data set, of which no hash depends."""

import json
import logging
import math
import socket
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any
from uuid import uuid4

from ..schemas.errors import UserError
from ..store.dataset import Dataset
from ..store.objects import ObjectStore

RUNS = "runs"
PART_EVENTS = 1000  # a bucket cannot append: the journal is a row of parts, and only the last is written again
FLUSH_SECONDS = 10.0  # what a killed run may lose of it
PULSE_SECONDS = 30.0  # between signs of life while no shard ends

# What readers of events take for granted.
_ALWAYS = {"event", "time", "run"}
_NEEDED = {
    "run_started": {"executor"},
    "worker_ready": {"worker"},
    "worker_lost": {"worker"},
    "worker_released": {"worker"},
    "shard_committed": {"shard", "images"},
    "run_ended": {"drained", "shards_left"},
    "run_stopped": {"error"},
}

log = logging.getLogger(__name__)


class Journal:
    """Writes `runs/TIME-ID.N.jsonl`. Use as a context manager, from one thread."""

    def __init__(self, store: ObjectStore, **about: Any) -> None:
        now = time.time()  # names sort by it
        self.run_id = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(now))}{int(now % 1 * 1000):03d}Z-{uuid4().hex[:8]}"
        self._store = store
        self._part = 0
        self._lines: list[bytes] = []
        self._flushed = 0
        self._last = 0.0
        self._pulse = time.monotonic()
        self.write("run_started", host=socket.gethostname(), **about)

    def write(self, event: str, **fields: Any) -> None:
        """Add one event with its time."""
        line = {"time": round(time.time(), 3), "run": self.run_id, "event": event, **fields}
        self._lines.append(json.dumps(line).encode() + b"\n")
        if len(self._lines) >= PART_EVENTS:
            self._flush()
            self._part += 1
            self._lines.clear()
            self._flushed = 0
        elif time.monotonic() - self._last >= FLUSH_SECONDS:
            self._flush()

    def pulse(self, **counts: Any) -> None:
        """A sign of life now and then, so that others can tell a run from the remains of one."""
        if time.monotonic() - self._pulse >= PULSE_SECONDS:
            self._pulse = time.monotonic()
            self.write("running", **counts)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.write("run_stopped", error=f"{type(error).__name__}: {error}")
        self._flush()

    def _flush(self) -> None:
        self._last = time.monotonic()
        if self._flushed == len(self._lines):
            return
        try:
            self._store.put(f"{RUNS}/{self.run_id}.{self._part:05d}.jsonl", b"".join(self._lines))
            self._flushed = len(self._lines)
        except UserError as error:  # the shards tell whether the target is in trouble
            log.warning("the run journal could not be written: %s", error)


def read_journal(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """The events of all runs, run by run in order of their beginning."""
    for key in journal_keys(dataset):
        yield from read_part(dataset, key)


def journal_keys(dataset: Dataset) -> list[str]:
    """The parts of all journals, run by run in order of their beginning."""
    return sorted(info.key for info in dataset.store.list(RUNS) if info.key.endswith(".jsonl"))


def read_part(dataset: Dataset, key: str) -> Iterator[dict[str, Any]]:
    """The events in one part of a journal; lines that are none are passed over, since nothing depends on them."""
    for line in dataset.store.get(key).splitlines():
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(event, dict) or not all(map(_plain, event.items())):
            continue
        if event.keys() >= _ALWAYS | _NEEDED.get(event.get("event", ""), set()):
            yield event


def _plain(field: tuple[str, Any]) -> bool:
    """Whether a field holds what its readers take it to hold."""
    name, value = field
    if name in ("event", "run", "host", "error"):
        return isinstance(value, str)
    if name in ("worker", "pid"):
        return isinstance(value, int | str)
    if name == "steps":
        return isinstance(value, dict) and all(isinstance(seconds, int | float) for seconds in value.values())
    if name in ("time", "shard", "seconds", "images", "masks", "quarantined"):
        return isinstance(value, int | float) and math.isfinite(value)
    return True
