"""Numbers that tell a healthy run from a sick one."""

from typing import Any

import torch
from torch import Tensor

from ...models.densecl.queue import KeyQueue


@torch.no_grad()
def queue_health(queue: KeyQueue, sample: int = 512) -> dict[str, Tensor]:
    """Of evenly spaced keys: `spread` and `cosine`, scalars on the queue's device.

    `spread` is the deviation of a channel over keys, times the square root of the channels: 1 for directions spread
    evenly over the sphere, 0 when all keys have collapsed into one. `cosine` is the mean similarity of two different
    keys: 0 when spread evenly, 1 when collapsed.
    """
    channels, length = queue.keys.shape
    keys = queue.keys[:, :: max(1, length // sample)]
    count = keys.shape[1]
    spread = keys.std(dim=1, correction=0).mean() * channels**0.5
    cosine = (keys.sum(1).square().sum() - count) / (count * (count - 1))
    return {"spread": spread, "cosine": cosine}


class Averages:
    """Means of device scalars between two readings, so that the device is waited for once per reading."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, **values: Tensor) -> None:
        """Take in one value each."""
        for name, value in values.items():
            number = value.detach().float()
            self._sums[name] = self._sums[name] + number if name in self._sums else number
            self._counts[name] = self._counts.get(name, 0) + 1

    def read(self) -> dict[str, float]:
        """The means, and start anew."""
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means


def is_finite(module: torch.nn.Module) -> bool:
    """Whether every floating-point number in parameters and buffers is finite."""
    tensors: list[Any] = [t for t in module.state_dict().values() if t.is_floating_point()]
    return bool(torch.stack([t.isfinite().all() for t in tensors]).all())
