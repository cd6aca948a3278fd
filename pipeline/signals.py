"""Ctrl-C and SIGTERM: once to finish cleanly, twice to stop at once."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_INTERRUPTED = 130
_SHOW_CURSOR = b"\x1b[?25h"  # a live display hides it


@contextmanager
def graceful_stop(on_first: Callable[[], None]) -> Iterator[threading.Event]:
    """Give an event that the first signal sets (after calling `on_first`); the second ends the process with 130.

    It ends whatever its threads do: no handler, no `finally`, no waiting for a decoder in C. Nothing is lost by that,
    since all that is written counts only once it is whole. Works in the main thread only, as signals do.
    """
    stop = threading.Event()

    def handle(_signal: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            _end_at_once()
        stop.set()
        on_first()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_at_once() -> None:
    if os.isatty(2):
        os.write(2, _SHOW_CURSOR + b"\n")
    os._exit(EXIT_INTERRUPTED)
