"""Shuffling BN: keys are encoded in another company than their queries (MoCo, section 3.3).

The batch of all processes is permuted, each encodes its share, and everything that comes out is put back in order:
the projections *and* the features, without which the correspondence would compare different photographs.
Shape legend: n images of this process, G of all.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributed as dist

from ..distributed import process_count
from .encoder import Encoded


@dataclass(frozen=True, slots=True, eq=False)
class Keys:
    """Encoded keys of this process's images, and [G, E] of everybody's what the queues take, in the batch's order."""

    mine: Encoded
    all_whole: Tensor
    all_pooled: Tensor | None


@torch.no_grad()
def encode_shuffled(encode: Callable[[Tensor], Encoded], images_n: Tensor, order_G: Tensor) -> Keys:
    """Encode the images in the order of a permutation of the whole batch, and undo it on every output.

    `order_G` is the same on all processes. Without torch.distributed G is n.
    """
    first, last, world = 0, len(images_n), process_count()
    assert len(order_G) == len(images_n) * world
    if world > 1:
        first = dist.get_rank() * len(images_n)
        last = first + len(images_n)
    encoded = encode(_gather(images_n)[order_G[first:last]])
    back_G = order_G.argsort()

    def restore(value: Tensor | None) -> Tensor | None:
        return None if value is None else _gather(value)[back_G]

    whole_GE = restore(encoded.whole)
    assert whole_GE is not None
    pooled, dense, features = (restore(v) for v in (encoded.pooled, encoded.dense, encoded.features))
    mine = Encoded(whole_GE[first:last], *(None if v is None else v[first:last] for v in (pooled, dense, features)))
    return Keys(mine, whole_GE, pooled)


def _gather(mine: Tensor) -> Tensor:
    world = process_count()
    if world == 1:
        return mine
    # Gathering keeps memory order, not shape order: channels-last images would arrive mixed up.
    parts = [torch.empty_like(mine, memory_format=torch.contiguous_format) for _ in range(world)]
    dist.all_gather(parts, mine.contiguous())
    return torch.cat(parts)
