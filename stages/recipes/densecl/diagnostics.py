"""Numbers that tell a healthy run from a sick one."""

import torch
from torch import Tensor

from ....models.densecl.queue import KeyQueue


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
