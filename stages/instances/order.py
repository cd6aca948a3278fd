"""The order in which training takes samples."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from ...schemas.training.sections import SupervisedConfig
from ..repeat_factors import Floats, draw_repeats


class TrainingOrder:
    """Which (place, turn) every micro step takes: a permutation of each pass over the data, whole batches only.

    The same for any number of processes: each takes its share of the batch. `turn` is the position since the run's
    beginning, and seeds augmentation. `batch`, `epoch_steps`, `start` and `stop` are those of micro steps. With
    `factors_I` a pass draws each image so many times, on average.
    """

    def __init__(
        self,
        count: int,
        batch: int,
        epoch_steps: int,
        seed: int,
        start: int,
        stop: int,
        rank: int,
        world: int,
        factors_I: Floats | None = None,
    ) -> None:
        self._count, self._batch, self._epoch_steps, self._seed = count, batch, epoch_steps, seed
        self._start, self._stop, self._rank, self._world = start, stop, rank, world
        self._factors_I = factors_I

    def __len__(self) -> int:
        return self._stop - self._start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        share = self._batch // self._world
        for step in range(self._start, self._stop):
            epoch, place = divmod(step, self._epoch_steps)
            order = self._order(epoch)
            first = place * self._batch + self._rank * share
            turn = step * self._batch + self._rank * share
            yield [(int(order[first + i]), turn + i) for i in range(share)]

    def _order(self, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """As many passes as fill an epoch's steps."""
        need = self._epoch_steps * self._batch
        passes = -(-need // self._count)
        generators = (np.random.default_rng((self._seed, epoch, i)) for i in itertools.count())
        if self._factors_I is None:
            return np.concatenate([next(generators).permutation(self._count) for _ in range(passes)])
        draw: list[np.ndarray[Any, np.dtype[np.int64]]] = []
        while sum(map(len, draw)) < need:
            generator = next(generators)
            draw.append(generator.permutation(draw_repeats(self._factors_I, generator)))
        return np.concatenate(draw)


def epoch_steps(config: SupervisedConfig, count: int) -> int:
    """Optimizer steps of an epoch over so many images; at least one."""
    return max(1, count * config.data.repeat // config.data.batch_size)
