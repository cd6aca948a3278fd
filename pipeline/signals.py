"""Ctrl-C and SIGTERM: once to finish cleanly, twice to stop at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def graceful_stop(on_first: Callable[[], None]) -> Iterator[threading.Event]:
    """Give an event that the first signal sets (after calling `on_first`); the second raises KeyboardInterrupt.

    Works in the main thread only, as signals do.
    """
    stop = threading.Event()

    def handle(_signal: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        on_first()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
