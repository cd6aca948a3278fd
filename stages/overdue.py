"""Who names an image whose decoding takes too long.

A decoder is a call into C that nothing can interrupt, and a verdict by the clock would make a data set depend on how
busy a machine is. So the limits on an image are counts (bytes, pixels, scans); the clock only tells, so that a person
who waits learns which file it is. A second Ctrl-C ends the process whatever a decoder does (`pipeline/signals.py`).
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

log = logging.getLogger(__name__)

OVERDUE_S = 20.0  # the largest allowed photograph takes a core about 2 s
LOOK_EVERY_S = 2.0


@dataclass(slots=True)
class _Decoding:
    name: str
    due: float  # of the monotonic clock: from then on it is overdue


_running: dict[int, _Decoding] = {}  # by thread
_watcher: list[threading.Thread] = []


@contextmanager
def named_if_overdue(name: str) -> Iterator[None]:
    """Log a warning with the image's name if the block takes more than OVERDUE_S, and again each time as long."""
    # A process that was forked off has the list but not the thread.
    if not _watcher or not _watcher[0].is_alive():
        _watcher[:] = [threading.Thread(target=_watch, name="overdue", daemon=True)]
        _watcher[0].start()
    me = threading.get_ident()
    _running[me] = _Decoding(name, time.monotonic() + OVERDUE_S)
    try:
        yield
    finally:
        del _running[me]


def tell_overdue(now: float) -> list[str]:
    """Log and give the names of images that are overdue at a time of the monotonic clock."""
    late = [decoding for decoding in list(_running.values()) if decoding.due <= now]
    for decoding in late:
        decoding.due = now + OVERDUE_S
        log.warning(
            "%s has been decoding for %.0f s or more: if it does not end, take it out of the photographs",
            decoding.name,
            OVERDUE_S,
        )
    return [decoding.name for decoding in late]


def _watch() -> None:
    while True:
        time.sleep(LOOK_EVERY_S)
        tell_overdue(time.monotonic())
