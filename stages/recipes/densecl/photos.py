"""Photographs as squares of bytes, in an order that depends on seed and step alone; bad ones are passed over."""

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ....schemas.labels.base import DecodeConfig
from ....schemas.records import ImageRef
from ....schemas.training.densecl import PhotosConfig
from ....store.run import Skipped
from ...decode import decode_image
from ...read import BadImage, read_image_bytes
from .views import step_generator

_ORDER = 0  # purpose of the generator
_UNKNOWN, _KEPT, _BAD = 0, 1, 2


@dataclass(frozen=True, slots=True, eq=False)
class Squares:
    """A batch: `pixels` uint8 [B, R, R, 3], `aspect` [B] width / height as stored, and what was found to be bad."""

    pixels: Tensor
    aspect: npt.NDArray[np.float64]
    skipped: tuple[Skipped, ...] = ()

    def pin_memory(self) -> "Squares":
        """For copies that don't wait; called by the loader."""
        return replace(self, pixels=self.pixels.pin_memory())

    def to(self, device: torch.device) -> "Squares":
        """The pixels on a device."""
        return replace(self, pixels=self.pixels.to(device, non_blocking=True))


class PhotoSquares(Dataset[Squares]):
    """Photographs stretched to squares; a bad one is replaced by the next good one of the list.

    What is decoded stays in memory (shared by forked loader processes) if all of it fits into `cache_gb`.
    `known_bad` are places in the list that an earlier run found to be bad.
    """

    def __init__(self, refs: Sequence[ImageRef], config: PhotosConfig, known_bad: Sequence[int] = ()) -> None:
        self._refs = refs
        self._side = side = config.side
        self._decode = DecodeConfig(
            short_side=side, long_side=side, keep_ratio=False, max_pixels=config.max_pixels, max_bytes=config.max_bytes
        )
        self.cached = len(refs) * side * side * 3 <= config.cache_gb * 1e9
        self._state = _shared(len(refs), np.uint8)
        self._state[list(known_bad)] = _BAD
        self._aspect = _shared(len(refs), np.float64)
        self._cache = _shared(len(refs) * side * side * 3, np.uint8).reshape(-1, side, side, 3) if self.cached else None

    def __len__(self) -> int:
        return len(self._refs)

    def __getitem__(self, index: int) -> Squares:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Squares:
        """The batch of these places."""
        pixels = torch.empty((len(indices), self._side, self._side, 3), dtype=torch.uint8)
        aspect = np.ones(len(indices))
        skipped: list[Skipped] = []
        for place, index in enumerate(indices):
            for candidate in range(index, index + len(self._refs)):
                value = self._load(candidate % len(self._refs), pixels[place].numpy())
                if isinstance(value, float):
                    aspect[place] = value
                    break
                if value is not None:
                    skipped.append(value)
        return Squares(pixels, aspect, tuple(skipped))

    def _load(self, index: int, out: npt.NDArray[np.uint8]) -> float | Skipped | None:
        """Fill `out` and give the aspect ratio; or what is newly found to be bad; or None if that was known."""
        state = self._state[index]
        if state == _BAD:
            return None
        if state == _KEPT and self._cache is not None:
            np.copyto(out, self._cache[index])
            return float(self._aspect[index])
        try:
            ref = self._refs[index]
            image = decode_image(read_image_bytes(ref, self._decode.max_bytes), ref, self._decode, out)
        except BadImage as trouble:
            self._state[index] = _BAD
            return Skipped(index, self._refs[index].file_name, trouble.reason, str(trouble))
        if self._cache is not None:
            self._cache[index] = out
            self._aspect[index] = image.width / image.height
            self._state[index] = _KEPT  # last: another process may look at any time
        return image.width / image.height


class StepBatches:
    """Which photographs each step takes: a new permutation per epoch, whole batches only.

    `batch` is that of all processes in one (micro) step; `rank` of `world` processes gets its share, in order.
    Iteration starts at step `start` and ends before step `stop`.
    """

    def __init__(
        self, count: int, batch: int, epoch_steps: int, seed: int, start: int, stop: int, rank: int = 0, world: int = 1
    ) -> None:
        assert batch % world == 0
        self._count, self._batch, self._epoch_steps, self._seed = count, batch, epoch_steps, seed
        self._start, self._stop = start, stop
        self._first, self._share = rank * (batch // world), batch // world

    def __len__(self) -> int:
        return self._stop - self._start

    def __iter__(self) -> Iterator[list[int]]:
        order: npt.NDArray[np.int64] = np.empty(0, np.int64)
        known = -1
        for step in range(self._start, self._stop):
            epoch, place = divmod(step, self._epoch_steps)
            if epoch != known:
                order, known = step_generator(self._seed, epoch, _ORDER).permutation(self._count), epoch
            begin = place * self._batch + self._first
            yield order[begin : begin + self._share].tolist()


def make_loader(photos: PhotoSquares, batches: StepBatches, workers: int, *, pin: bool) -> DataLoader[Squares]:
    """The loader of a run; it does not touch torch's global generator."""
    return DataLoader(
        photos,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_as_is,
        pin_memory=pin,
        generator=torch.Generator(),
        multiprocessing_context="fork" if workers else None,
        prefetch_factor=4 if workers else None,
    )


def _as_is(batch: Any) -> Any:
    return batch


def _shared(length: int, kind: type) -> npt.NDArray[np.generic]:
    """Zeros that forked processes share; pages cost memory once they are written."""
    size = max(1, length * np.dtype(kind).itemsize)
    return np.frombuffer(mmap.mmap(-1, size), dtype=kind, count=length)
