"""Prometheus metrics, through Ray's own exporter on every node."""

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..pipeline.engine import Meter
from ..schemas.manifest import ShardCounts
from .session import load_ray


class Metric(NamedTuple):
    """A metric as Ray takes it; Prometheus sees it with the prefix `ray_`."""

    kind: str
    name: str
    description: str
    tags: tuple[str, ...] = ()


IMAGES = Metric("Counter", "saliency_prompt_images", "Images committed.")
MASKS = Metric("Counter", "saliency_prompt_masks", "Masks committed.")
QUARANTINED = Metric("Counter", "saliency_prompt_quarantined", "Images set aside.")
SHARDS = Metric("Counter", "saliency_prompt_shards", "Shards committed.")
RETRIES = Metric("Gauge", "saliency_prompt_retries", "Attempts after a first, in this run.")
FAILED = Metric("Gauge", "saliency_prompt_failed_shards", "Shards given up, in this run.")
QUEUE = Metric("Gauge", "saliency_prompt_queue_depth", "Shards that wait for a worker.")
WORKERS = Metric("Gauge", "saliency_prompt_workers", "Workers by state.", ("state",))
SECONDS = Metric("Counter", "saliency_prompt_step_seconds", "Thread seconds spent by step.", ("step",))
IDLE = Metric("Gauge", "saliency_prompt_device_idle_share", "Share of the time in which the device waited for images.")

ALL = (IMAGES, MASKS, QUARANTINED, SHARDS, RETRIES, FAILED, QUEUE, WORKERS, SECONDS, IDLE)


def _make(metric: Metric) -> Any:
    load_ray()
    from ray.util import metrics

    return getattr(metrics, metric.kind)(metric.name, description=metric.description, tag_keys=metric.tags)


class WorkerMetrics:
    """What a worker tells: seconds by step, and how idle its device was since it last told."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._seconds, self._idle = _make(SECONDS), _make(IDLE)
        self._last = dict(meter.seconds)
        self._clock = time.perf_counter()

    def export(self) -> None:
        """Tell what was added since the last call."""
        now, clock = dict(self._meter.seconds), time.perf_counter()
        for step, seconds in now.items():
            if seconds > self._last[step]:
                self._seconds.inc(seconds - self._last[step], tags={"step": step})
        starved = (now["starved"] - self._last["starved"]) / max(clock - self._clock, 1e-9)
        self._idle.set(min(starved, 1.0))
        self._last, self._clock = now, clock


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of a run's queue and pool."""

    waiting: int
    retries: int
    failed: int
    ready: int
    starting: int


class RunMetrics:
    """What the driver tells: images, masks and shards as they are committed, and the state of queue and pool."""

    def __init__(self) -> None:
        self._made = {metric: _make(metric) for metric in ALL if metric not in (SECONDS, IDLE)}

    def committed(self, counts: ShardCounts) -> None:
        """A shard was committed."""
        added = {IMAGES: counts.images, MASKS: counts.masks, QUARANTINED: counts.quarantined, SHARDS: 1}
        for metric, value in added.items():
            if value:
                self._made[metric].inc(value)

    def state(self, now: Progress) -> None:
        """How it stands."""
        for metric, value in ((RETRIES, now.retries), (FAILED, now.failed), (QUEUE, now.waiting)):
            self._made[metric].set(value)
        for state, value in (("ready", now.ready), ("starting", now.starting)):
            self._made[WORKERS].set(value, tags={"state": state})
