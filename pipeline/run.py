"""Running a planned data set in this process: shard by shard, resumable at every moment.

`ShardRunner.run_shard` is the seam between executors: it is all an executor needs to know.
"""

import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np
import torch

from ..schemas.labels.base import LabelConfig
from ..schemas.manifest import CommitInfo, Seal, ShardCounts
from ..schemas.records import ImageRecord, ImageRef
from ..stages.producers.contract import Loaded
from ..stages.read import BadImage, quarantined, read_image_bytes
from ..store.dataset import Dataset
from ..store.presence import incomplete_shards
from ..store.shard import build_shard, commit_shard
from ..version import __version__
from .engine import Engine, EngineClosedError, Meter
from .parent import Parent
from .process import without_helpers

IN_FLIGHT = 3  # shards: one on the device, one being read, one being written


@dataclass(frozen=True, slots=True)
class ShardReport:
    """What one shard came to; `seconds` from its first read to its commit."""

    shard_id: int
    counts: ShardCounts
    content_hash: str
    seconds: float


@dataclass(frozen=True, slots=True)
class RunReport:
    """How a run ended. `seal` is None if shards are left to do; `drained` if `drain` asked for that."""

    shards_done: int
    shards_left: int
    seal: Seal | None
    drained: bool = False


class ShardRunner:
    """Computes and commits single shards of a data set on one device. Use as a context manager.

    Several threads may call `run_shard` at once: that is how the device is kept busy across shards. `cores` is this
    runner's share of the machine, by default all of it. `parent` is the data set that this one is made from.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: LabelConfig,
        loaded: Loaded,
        device: torch.device,
        cores: int | None = None,
        parent: Parent | None = None,
    ) -> None:
        cores = cores or os.cpu_count() or 1
        with without_helpers():
            producer = loaded.build(config, device)
        self.dataset = dataset
        self._parent = parent
        self._max_bytes = config.decode.max_bytes
        self._level = config.compression_level
        self._engine = Engine(
            producer, read_threads=min(16, max(2, cores // 2)), encode_threads=min(16, max(1, cores // 2))
        )

    @property
    def meter(self) -> Meter:
        """Live counters of all shards run here."""
        return self._engine.meter

    def run_shard(self, shard_id: int, generation: int = 0, crashed: Collection[int] = ()) -> ShardReport:
        """Read, compute, write and commit one shard; the same bytes whenever and wherever it runs.

        The images at the positions `crashed` are set aside, since they end the process. Raises UserError where the
        user can help: the target is full or not writable, the device out of memory.
        """
        started, clock = time.time(), time.perf_counter()
        refs = self.dataset.read_inputs(shard_id)
        done = iter(self._compute(shard_id, [ref for i, ref in enumerate(refs) if i not in crashed]))
        records = [crashed_record(ref, self._max_bytes) if i in crashed else next(done) for i, ref in enumerate(refs)]
        card = self.dataset.card
        files = build_shard(records, self._level, card.masks_schema, card.format_version)
        seconds = time.perf_counter() - clock
        commit = commit_shard(
            self.dataset.store,
            shard_id,
            files,
            fingerprint=card.fingerprint,
            counts=count(records),
            generation=generation,
            format_version=card.format_version,
            info=CommitInfo(started=started, seconds=seconds, host=socket.gethostname(), code_version=__version__),
        )
        return ShardReport(shard_id, commit.counts, commit.content_hash, time.perf_counter() - clock)

    def probe(self, shard_id: int, start: int, stop: int) -> None:
        """Compute the images at positions [start, stop) of a shard and forget them."""
        self._compute(shard_id, self.dataset.read_inputs(shard_id)[start:stop])

    def _compute(self, shard_id: int, refs: list[ImageRef]) -> list[ImageRecord]:
        priors = None if self._parent is None else self._parent.priors(shard_id, refs)
        return self._engine.submit(refs, priors).result()

    def drain(self) -> None:
        """Give up shards that were handed in and not begun; those on the device go on."""
        self._engine.drain()

    def close(self) -> None:
        """Give up all that is not committed."""
        self._engine.close()

    def __enter__(self) -> "ShardRunner":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def crashed_record(ref: ImageRef, max_bytes: int) -> ImageRecord:
    """The row of an image that ends the process: its bytes are read but not looked at."""
    trouble = BadImage("crashed", "the process that computes it dies")
    try:
        return quarantined(ref, trouble, hashlib.sha256(read_image_bytes(ref, max_bytes)).hexdigest())
    except BadImage:
        return quarantined(ref, trouble)


def count(records: Iterable[ImageRecord]) -> ShardCounts:
    """Totals over the records of a shard."""
    rows = [(r.status, len(r.masks) if r.masks else 0) for r in records]
    by_status = {status: sum(s == status for s, _ in rows) for status in ("ok", "empty", "quarantined")}
    return ShardCounts(images=len(rows), masks=sum(n for _, n in rows), **by_status)


def run_in_process(
    runner: ShardRunner,
    shard_ids: Iterable[int],
    *,
    generation: Callable[[int], int] = lambda _: 0,
    stop: threading.Event,
    tick: Callable[[], None] = lambda: None,
) -> Iterator[ShardReport]:
    """Run shards in order, a few in flight, and give each report as its shard is committed.

    `stop` lets the shards on the device finish and starts no more. `tick` is called several times a second. The first
    failure gives up the others and is raised.
    """
    waiting = iter(shard_ids)
    with ThreadPoolExecutor(IN_FLIGHT, "shard") as pool:
        active: set[Future[ShardReport]] = set()
        try:
            while True:
                while len(active) < IN_FLIGHT and not stop.is_set() and (shard := next(waiting, None)) is not None:
                    active.add(pool.submit(runner.run_shard, shard, generation(shard)))
                if not active:
                    return
                done, active = wait(active, timeout=0.2, return_when=FIRST_COMPLETED)
                if stop.is_set():
                    runner.drain()
                tick()
                for future in done:
                    if not (stop.is_set() and isinstance(future.exception(), EngineClosedError)):
                        yield future.result()
        except BaseException:
            runner.close()  # the pool waits for its shards: let them fail at once
            raise


def unfinished(dataset: Dataset) -> list[int]:
    """Shards without a commit, in order."""
    return [int(i) for i in np.flatnonzero(~dataset.committed())]


def finish(dataset: Dataset, shards_done: int) -> RunReport:
    """Seal the data set if every shard is committed, and its files are there."""
    generations = dataset.generations()
    left = int(np.count_nonzero(generations < 0)) + len(incomplete_shards(dataset, generations))
    return RunReport(shards_done, left, None if left else dataset.seal())
