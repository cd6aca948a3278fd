"""What a run would cost, from a short calibration on some of its own images. Writes nothing."""

import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from ..schemas.labels.base import LabelConfig
from ..schemas.records import ImageRef, columns_of, masks_schema
from ..schemas.registry import PRODUCERS, producer_of
from ..stages.producers.contract import Loaded
from ..store.dataset import Dataset
from ..store.layout import CARD
from ..store.objects import open_store
from ..store.shard import build_shard
from .engine import Engine
from .plan import resolve_config
from .sources import Source

START_SECONDS = 60.0  # of a worker on a warm node: its process, the weights, the first batch


@dataclass(frozen=True, slots=True)
class Estimate:
    """A plan in numbers: bytes in and out, and seconds on this machine; by calibration on `sampled` images.

    `rotated_in_sample` of these have an EXIF block that says to turn them.
    """

    n_images: int
    n_shards: int
    bytes_in: int
    bytes_out: int
    files_per_shard: int
    seconds: float
    sampled: int
    quarantined_in_sample: int
    config: LabelConfig
    rotated_in_sample: int = 0


def estimate(source: Source, config: LabelConfig, loaded: Loaded, device: torch.device) -> Estimate:
    """List the source, run two small samples of it and extrapolate (the first warms up and is not counted)."""
    resolved = resolve_config(config, loaded.facts, device, source)
    producer = loaded.build(resolved, device)
    own = PRODUCERS[producer_of(resolved)].columns
    size = max(4, 2 * producer.batch_size)
    sample, n_images, bytes_in = _sample(source, 2 * size)
    warm, timed = sample[: len(sample) // 2], sample[len(sample) // 2 :]
    with Engine(producer, read_threads=2, encode_threads=2) as engine:
        engine.submit(warm).result()
        start = time.perf_counter()
        records = engine.submit(timed).result()
        files = build_shard(records, resolved.compression_level, masks_schema(columns_of(own)))
        seconds = time.perf_counter() - start
    share = n_images / len(timed)
    return Estimate(
        n_images=n_images,
        n_shards=-(-n_images // resolved.plan.shard_size),
        bytes_in=bytes_in,
        bytes_out=round(sum(map(len, files.values())) * share),
        files_per_shard=len(files),
        seconds=seconds * share,
        sampled=len(timed),
        quarantined_in_sample=sum(record.status == "quarantined" for record in records),
        config=resolved,
        rotated_in_sample=sum(record.exif_orientation > 1 for record in records),
    )


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run on `workers` equal workers takes: of each one's time, of time, and of money."""

    workers: int
    shards_left: int
    images_left: int
    objects_out: int
    worker_seconds: float
    seconds: float
    cost: float | None


def forecast(
    plan: Estimate, out: str, *, workers: int, seconds_per_image: float | None, price: float | None
) -> Forecast:
    """Extend a calibration to a number of workers and the shards that `out` does not hold yet.

    `seconds_per_image` replaces the calibrated one if the workers' hardware is not this machine's; `price` is that of
    a worker for an hour. Shards are whole: the last round may leave workers idle.
    """
    left, images = plan.n_shards, plan.n_images
    store = open_store(out, create=False) if "://" in out or Path(out).is_dir() else None
    if store is not None and store.exists(CARD):
        dataset = Dataset.of(store)
        done = dataset.counts().images
        left, images = dataset.card.n_shards - int(dataset.committed().sum()), dataset.card.n_images - done
    each = seconds_per_image or plan.seconds / max(plan.n_images, 1)
    busy = min(workers, left)
    rounds = -(-left // busy) if busy else 0
    per_shard = images / left * each if left else 0.0
    seconds = rounds * per_shard + (START_SECONDS if left else 0.0)
    worker_seconds = images * each + busy * START_SECONDS
    return Forecast(
        workers=workers,
        shards_left=left,
        images_left=images,
        objects_out=(plan.files_per_shard + 1) * left,
        worker_seconds=worker_seconds,
        seconds=seconds,
        cost=None if price is None else busy * seconds / 3600 * price,
    )


def _sample(source: Source, size: int) -> tuple[list[ImageRef], int, int]:
    """A uniform sample of the source's images in one pass, their number, and their bytes as far as known."""
    chooser = random.Random(0)  # noqa: S311 - a calibration sample, the same every time
    sample: list[ImageRef] = []
    count = known = total = 0
    for ref in source.refs():
        count += 1
        if ref.size_bytes is not None:
            known, total = known + 1, total + ref.size_bytes
        if len(sample) < size:
            sample.append(ref)
        elif (place := chooser.randrange(count)) < size:
            sample[place] = ref
    return sample, count, round(total / known * count) if known else 0
