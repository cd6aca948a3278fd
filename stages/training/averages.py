"""Numbers of a run, collected without waiting for the device."""

from typing import Any

import torch
from torch import Tensor


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
