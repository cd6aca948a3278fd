"""Stopping a run from any machine: a marker in its data set that every run looks for."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..schemas.errors import UserError
from ..store.dataset import Dataset
from .journal import RUNS

DRAIN = f"{RUNS}/drain"
LOOK_EVERY = 3.0  # seconds


@dataclass(slots=True)
class DrainWatch:
    """Whether `drain` was asked for."""

    seen: bool = False


def request_drain(dataset: Dataset) -> None:
    """Ask all runs on a data set to finish the shards in flight and start no more."""
    dataset.store.put(DRAIN, b"")


@contextmanager
def watch_drain(dataset: Dataset, stop: threading.Event) -> Iterator[DrainWatch]:
    """Set `stop` once `drain` is asked for; requests from before the block are void."""
    watch, over = DrainWatch(), threading.Event()
    dataset.store.delete([DRAIN])

    def look() -> None:
        while not over.wait(LOOK_EVERY):
            try:
                if dataset.store.exists(DRAIN):
                    watch.seen = True
                    stop.set()
                    return
            except UserError:  # the store does not answer now: look again
                continue

    thread = threading.Thread(target=look, name="drain", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join()
