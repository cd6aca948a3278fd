"""Batches between processes: all tensors in one piece of memory.

A loader hands each tensor of a batch over through a file descriptor and a message of its own, which the training
process waits for: half a millisecond each, and a batch of objects has dozens.
"""

import io
import pickle
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

ALIGN = 16  # bytes: every dtype may begin there

Layout = list[tuple[torch.dtype, tuple[int, ...]]]


class Packed:
    """A dataclass that goes to another process as one buffer. There its tensors are views of it, and plain ones."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        file = io.BytesIO()
        pickler = _Pickler(file)
        pickler.dump(tuple(getattr(self, one.name) for one in fields(self)))  # type: ignore[arg-type]
        layout = [(one.dtype, tuple(one.shape)) for one in pickler.tensors]
        return _rebuild, (type(self), file.getvalue(), layout, _join(pickler.tensors))


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.tensors: list[Tensor] = []

    def persistent_id(self, obj: object) -> int | None:
        if not isinstance(obj, Tensor):
            return None
        self.tensors.append(obj)
        return len(self.tensors) - 1


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, tensors: list[Tensor]) -> None:
        super().__init__(file)
        self.tensors = tensors

    def persistent_load(self, pid: int) -> Tensor:
        return self.tensors[pid]


def _join(tensors: list[Tensor]) -> Tensor:
    sizes = [-(-one.nbytes // ALIGN) * ALIGN for one in tensors]
    buffer = torch.empty(sum(sizes), dtype=torch.uint8)
    for part, one in zip(torch.split(buffer, sizes), tensors, strict=True):
        part[: one.nbytes].view(one.dtype).view(one.shape).copy_(one)
    return buffer


def _rebuild(kind: type, values: bytes, layout: Layout, buffer: Tensor) -> object:
    tensors, start = [], 0
    for dtype, shape in layout:
        size = torch.Size(shape).numel() * dtype.itemsize
        tensors.append(buffer[start : start + size].view(dtype).view(shape))
        start += -(-size // ALIGN) * ALIGN
    return kind(*_Unpickler(io.BytesIO(values), tensors).load())
