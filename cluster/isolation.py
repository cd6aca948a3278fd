"""Finding the images that end the process which reads them, by probing smaller and smaller parts of a shard."""

SPLIT = 16  # parts at each level: 1,024 images come down to one in three deaths
MAX_DEATHS = 60  # of workers on one shard, before it is given up


class Isolation:
    """The search within one shard of `n_images`; tells which range of positions to try next.

    An image is blamed only after a worker died twice on it alone: a worker may die for other reasons.
    """

    def __init__(self, n_images: int) -> None:
        self.crashed: list[int] = []
        self._ranges = _parts(0, n_images)
        self._struck = False
        self._deaths = 0

    @property
    def current(self) -> tuple[int, int] | None:
        """The positions [start, stop) to try now; None when the search is over."""
        return self._ranges[-1] if self._ranges and self._deaths < MAX_DEATHS else None

    def survived(self) -> None:
        """The current range did no harm."""
        self._ranges.pop()
        self._struck = False

    def lost(self) -> None:
        """The worker died on the current range."""
        self._deaths += 1
        start, stop = self._ranges[-1]
        if stop - start > 1:
            self._ranges[-1:] = _parts(start, stop)
        elif self._struck:
            self.crashed.append(start)
            self.survived()
        else:
            self._struck = True


def _parts(start: int, stop: int) -> list[tuple[int, int]]:
    """Up to SPLIT ranges, the first one last: the list is a stack."""
    step = max(1, -(-(stop - start) // SPLIT))
    return [(low, min(low + step, stop)) for low in range(start, stop, step)][::-1]
