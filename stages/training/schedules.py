"""Learning rates as functions of the step. `done` is the share of all steps that are behind, 0..1."""

import math
from collections.abc import Sequence

WARMUP_START = 0.001


def cosine(done: float) -> float:
    """From 1 to 0 without restarts."""
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def steps(done: float, decay_at: Sequence[float]) -> float:
    """A tenth after each of the shares."""
    rate: float = 0.1 ** sum(done >= share for share in decay_at)
    return rate


def poly(done: float, power: float = 0.9) -> float:
    """(1 - done) ** power."""
    rate: float = (1 - min(1.0, done)) ** power
    return rate


def warmup(step: int, steps: int) -> float:
    """Linear from a thousandth to 1 in so many steps."""
    return 1.0 if step >= steps else WARMUP_START + (1 - WARMUP_START) * step / steps
