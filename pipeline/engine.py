"""The steps of a producer on one device, with reading and encoding in threads around the forward pass.

    feed thread + read pool -> batches of one shape -> device thread -> encode pool -> records

While one batch is on the device others are decoded, encoded and written, also across the border of two shards.
Batches are formed by the order of a shard's images alone, so that its bytes do not depend on timing. Nothing in the
device thread waits for the device.
"""

import contextlib
import hashlib
import queue
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import torch

from ..schemas.errors import UserError
from ..schemas.labels.base import DecodeConfig
from ..schemas.manifest import ShardCounts
from ..schemas.records import ImageRecord, ImageRef
from ..stages.decode import DecodedImage, decode_image
from ..stages.pixels import Shape, stack_pixels
from ..stages.producers.contract import Admit, PixelBatch, Prior, Producer, Work
from ..stages.read import BadImage, quarantined, read_image_bytes
from .batching import Batcher

MAX_WAITING_BATCHES = 8  # decoded images that may wait for others of their shape, in batches


class EngineClosedError(RuntimeError):
    """The engine was closed before the shard was finished; its work is lost and nothing else."""


@dataclass(slots=True)
class Meter:
    """Counters that any thread may read while shards run; `seconds` is thread time by step.

    `starved` is the time in which the device waited for images.
    """

    images: int = 0
    masks: int = 0
    quarantined: int = 0
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("read", "starved", "device", "encode"), 0.0)
    )
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _lapped: dict[str, float] = field(default_factory=dict)

    def count(self, record: ImageRecord) -> None:
        """Count one finished image."""
        with self._lock:
            self.images += 1
            self.masks += len(record.masks) if record.masks else 0
            self.quarantined += record.status == "quarantined"

    def add(self, counts: ShardCounts) -> None:
        """Count a whole shard that was computed elsewhere."""
        with self._lock:
            self.images += counts.images
            self.masks += counts.masks
            self.quarantined += counts.quarantined

    def spend(self, step: str, since: float) -> None:
        """Add the time since `since` (`time.perf_counter`) to a step."""
        spent = time.perf_counter() - since
        with self._lock:
            self.seconds[step] += spent

    def lap(self) -> dict[str, float]:
        """Thread seconds by step since the last call."""
        with self._lock:
            now = dict(self.seconds)
            spent = {step: round(total - self._lapped.get(step, 0.0), 3) for step, total in now.items()}
            self._lapped = now
        return spent


@dataclass(slots=True, eq=False)
class _Shard:
    refs: list[ImageRef]
    priors: list[Prior | None]
    future: Future[list[ImageRecord]] = field(default_factory=Future)
    records: dict[int, ImageRecord] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def finish(self, index: int, record: ImageRecord) -> None:
        with self.lock:
            self.records[index] = record
            complete = len(self.records) == len(self.refs) and not self.future.done()
        if complete:
            self.future.set_result([self.records[i] for i in range(len(self.refs))])

    def fail(self, error: BaseException) -> None:
        with self.lock:
            if not self.future.done():
                self.future.set_exception(error)


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    shard: _Shard
    indices: list[int]
    pixels: PixelBatch


class Engine:
    """Turns lists of image references into records; with two lists submitted the device never idles between them.

    Use as a context manager, which closes the producer as well.
    """

    def __init__(self, producer: Producer[Any], *, read_threads: int, encode_threads: int) -> None:
        self.meter = Meter()
        self._producer = producer
        self._shards: queue.Queue[_Shard | None] = queue.Queue()
        self._batches: queue.Queue[_Batch | None] = queue.Queue(maxsize=2)
        self._in_flight = threading.Semaphore(encode_threads + 2)  # batches past the device thread
        self._read_ahead = 2 * max(producer.batch_size, read_threads)
        self._read_pool = ThreadPoolExecutor(read_threads, "read")
        self._encode_pool = ThreadPoolExecutor(encode_threads, "encode")
        self._closing = False
        self._threads = [
            threading.Thread(target=self._feed, name="feed", daemon=True),
            threading.Thread(target=self._compute, name="device", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, refs: list[ImageRef], priors: list[Prior | None] | None = None) -> Future[list[ImageRecord]]:
        """Queue one shard's images; the future gives one record for each, in the same order.

        `priors` are the masks that each one has in the data set that is labelled anew.
        """
        shard = _Shard(refs, [None] * len(refs) if priors is None else priors)
        if not refs:
            shard.future.set_result([])
        elif self._closing:
            shard.fail(EngineClosedError())
        else:
            self._shards.put(shard)
        return shard.future

    def drain(self) -> None:
        """Give up the shards that wait, with EngineClosedError; those begun go on."""
        with contextlib.suppress(queue.Empty):
            while (shard := self._shards.get_nowait()) is not None:
                shard.fail(EngineClosedError())

    def close(self) -> None:
        """Stop all threads; shards that are not finished are given up with EngineClosedError."""
        self._closing = True
        self.drain()
        self._shards.put(None)
        for thread in self._threads:
            thread.join()
        self._read_pool.shutdown(cancel_futures=True)
        self._encode_pool.shutdown()
        self._producer.close()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _feed(self) -> None:
        while (shard := self._shards.get()) is not None:
            try:
                self._feed_shard(shard)
            except BaseException as error:  # handed to whoever waits for the shard
                shard.fail(error)
        self._batches.put(None)

    def _feed_shard(self, shard: _Shard) -> None:
        size = self._producer.batch_size
        batcher: Batcher[tuple[int, Admitted]] = Batcher(size, MAX_WAITING_BATCHES * size)
        reading: deque[Future[Admitted | ImageRecord]] = deque()
        submitted = 0
        for index in range(len(shard.refs)):
            while submitted < min(len(shard.refs), index + self._read_ahead):
                reading.append(self._read_pool.submit(self._read, shard.refs[submitted]))
                submitted += 1
            if self._closing or shard.future.done():
                raise EngineClosedError
            read = reading.popleft().result()
            if isinstance(read, ImageRecord):
                self._finish(shard, index, read)
            elif batch := batcher.add(read.shape, (index, read)):
                self._put(shard, batch)
        for batch in batcher.flush():
            self._put(shard, batch)

    def _put(self, shard: _Shard, batch: list[tuple[int, "Admitted"]]) -> None:
        indices, images = [index for index, _ in batch], [one.image for _, one in batch]
        on_gpu = self._producer.device.type == "cuda"
        pixels = stack_pixels([image.pixels for image in images], pin=on_gpu, shape=batch[0][1].shape)
        priors, refs = [shard.priors[i] for i in indices], [shard.refs[i] for i in indices]
        self._batches.put(_Batch(shard, indices, PixelBatch(pixels, images, priors, refs)))

    def _read(self, ref: ImageRef) -> "Admitted | ImageRecord":
        start = time.perf_counter()
        read = load_image(ref, self._producer.decode, self._producer.admit)
        self.meter.spend("read", start)
        return read

    def _compute(self) -> None:
        if self._producer.device.type == "cuda":
            torch.cuda.set_device(self._producer.device)  # events and streams are those of the thread's device
        while (batch := self._next_batch()) is not None:
            if self._closing:
                batch.shard.fail(EngineClosedError())
            elif not batch.shard.future.done():
                self._in_flight.acquire()
                try:
                    work = self._forward(batch.pixels)
                except BaseException as error:  # handed to whoever waits for the shard
                    self._in_flight.release()
                    batch.shard.fail(_explained(error, len(batch.indices), self._producer.memory_key))
                else:
                    self._encode_pool.submit(self._encode, batch, work)

    def _next_batch(self) -> _Batch | None:
        start = time.perf_counter()
        batch = self._batches.get()
        self.meter.spend("starved", start)
        return batch

    def _forward(self, pixels: PixelBatch) -> Work:
        start = time.perf_counter()
        with torch.inference_mode():
            work: Work = self._producer.forward(pixels)
        self.meter.spend("device", start)
        return work

    def _encode(self, batch: _Batch, work: Work) -> None:
        try:
            work.wait()
            start = time.perf_counter()
            for i, (index, image) in enumerate(zip(batch.indices, batch.pixels.images, strict=True)):
                record = self._producer.record(work, i, batch.shard.refs[index], image)
                self._finish(batch.shard, index, record)
            self.meter.spend("encode", start)
        except BaseException as error:  # handed to whoever waits for the shard
            batch.shard.fail(error)
        finally:
            self._in_flight.release()

    def _finish(self, shard: _Shard, index: int, record: ImageRecord) -> None:
        self.meter.count(record)
        shard.finish(index, record)


@dataclass(frozen=True, slots=True, eq=False)
class Admitted:
    """An image that will be computed, and the size it is padded to: images of one size share a batch."""

    image: DecodedImage
    shape: Shape


def load_image(ref: ImageRef, decode: DecodeConfig, admit: Admit) -> Admitted | ImageRecord:
    """Read and decode one image, or say in its record why it cannot be used."""
    data = None
    try:
        data = read_image_bytes(ref, decode.max_bytes)
        image = decode_image(data, ref, decode)
        return Admitted(image, admit(image))
    except BadImage as bad:
        return quarantined(ref, bad, None if data is None else hashlib.sha256(data).hexdigest())


def _explained(error: BaseException, batch: int, key: str) -> BaseException:
    """An out-of-memory error with the way out; anything else as it is."""
    if isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    ):
        return UserError(
            f"The device ran out of memory on a batch of {batch} images: set {key} below {batch}, "
            "or a smaller decode.short_side."
        )
    return error
