"""How a run shows itself: a live line on a terminal, log lines elsewhere."""

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from .engine import Meter
from .plan import Planned
from .run import ShardReport

LOG_EVERY = 30.0  # seconds between log lines without a terminal


class Display:
    """Images per second, masks per image, quarantined images and time left. Use as a context manager.

    The total counts images: of a resumed run only those of the shards that are left.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Progress(
            SpinnerColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} images"),
            BarColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task = None if not console.is_terminal else self._live.add_task("", total=0, rate="", visible=False)
        self._total = 0
        self._start = self._last_line = time.monotonic()

    def planned(self, planned: Planned, shards: int) -> None:
        """Say what will be done."""
        card = planned.dataset.card
        self._total = min(shards * card.shard_size, card.n_images)
        self._start = self._last_line = time.monotonic()
        verb = "resuming" if planned.resumed else "planned"
        self._console.print(
            f"{verb} {planned.dataset.url}: {card.n_images:,} images in {card.n_shards:,} shards, {shards:,} to do "
            f"({planned.config.words}, {card.device})",
        )
        if self._task is not None:
            self._live.update(self._task, total=self._total, visible=True)

    def running(self, meter: Meter) -> None:
        """Refresh the live line, or log one now and then."""
        if self._task is not None:
            self._live.update(self._task, completed=meter.images, rate=self._rate(meter))
        elif time.monotonic() - self._last_line >= LOG_EVERY:
            self._last_line = time.monotonic()
            self._console.print(f"{meter.images:,}/{self._total:,} images, {self._rate(meter)}")

    def committed(self, report: ShardReport) -> None:
        """One line per shard without a terminal."""
        if self._task is None:
            counts = report.counts
            self._console.print(
                f"shard {report.shard_id} committed: {counts.images:,} images, {counts.masks:,} masks, "
                f"{counts.quarantined} quarantined, {report.seconds:.1f} s",
            )

    def __enter__(self) -> "Display":
        if self._task is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._task is not None:
            self._live.stop()

    def _rate(self, meter: Meter) -> str:
        rate = meter.images / max(time.monotonic() - self._start, 1e-9)
        usable = max(meter.images - meter.quarantined, 1)
        left = (self._total - meter.images) / rate if rate else 0.0
        return (
            f"{rate:.1f} images/s, {meter.masks / usable:.1f} masks/image, {meter.quarantined} quarantined, "
            f"{duration(left)} left"
        )


def duration(seconds: float) -> str:
    """A time span as people say it: 8 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
