"""DenseCL: query and momentum encoders, two queues, and one step of the method (thesis section 5.2).

Shape legend: n images of this process, G of all, P = S^2 grid cells.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..backbones.base import Backbone
from .encoder import EMBEDDING, Encoded, Encoder
from .losses import gather_cells, info_nce, match_cells
from .norm import split_batch_norm
from .queue import KeyQueue
from .shuffle import encode_shuffled


@dataclass(frozen=True, slots=True, eq=False)
class StepOutput:
    """Losses of one batch, and the correspondence used: `match` [n, P], the key cell of each query cell.

    `dense_loss` and `match` are None for MoCo-v2.
    """

    loss: Tensor
    global_loss: Tensor
    dense_loss: Tensor | None
    match: Tensor | None


# How cells of two views correspond (thesis Table 5.7); the last argument holds numbers in [0, 1) for random matches.
Matcher = Callable[[Encoded, Encoded, Tensor], Tensor]


def _by_features(query: Encoded, key: Encoded, _random_nP: Tensor) -> Tensor:
    assert query.features is not None
    assert key.features is not None
    return match_cells(query.features, key.features)


def _by_projections(query: Encoded, key: Encoded, _random_nP: Tensor) -> Tensor:
    assert query.dense is not None
    assert key.dense is not None
    return match_cells(query.dense.detach(), key.dense)


def _at_random(_query: Encoded, key: Encoded, random_nP: Tensor) -> Tensor:
    assert key.dense is not None
    return (random_nP * key.dense.shape[2]).long()


MATCHERS: dict[str, Matcher] = {
    "max-sim-features": _by_features,
    "max-sim-theta": _by_projections,
    "random": _at_random,
}


class DenseCL(nn.Module):
    """The trained module; `query.backbone` is what one wants of it.

    With `dense` false this is MoCo-v2. Parameters come from the backbone given (the encoders start equal), torch's
    global generator (heads) and `seed` (queues). `splits` > 1 normalises parts of the batch (see `norm`).
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        queue: int = 65536,
        dense: bool = True,
        grid: int = 0,
        matching: str = "max-sim-features",
        tau: float = 0.2,
        splits: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.query = Encoder(backbone, dense=dense, grid=grid)
        if splits > 1:
            split_batch_norm(self.query, splits)
        self.key = copy.deepcopy(self.query).requires_grad_(False)
        generator = torch.Generator().manual_seed(seed)
        self.global_queue = KeyQueue(EMBEDDING, queue, generator)
        self.dense_queue = KeyQueue(EMBEDDING, queue, generator) if dense else None
        self.tau = tau
        self._match = MATCHERS[matching]

    @torch.no_grad()
    def update_key(self, momentum: float) -> None:
        """Key = momentum * key + (1 - momentum) * query, for all parameters (MoCo Eq. 2)."""
        torch._foreach_lerp_(list(self.key.parameters()), list(self.query.parameters()), 1 - momentum)

    def forward(
        self,
        queries_n3HW: Tensor,
        keys_n3HW: Tensor,
        *,
        weight: float,
        order_G: Tensor,
        random_nP: Tensor | None = None,
    ) -> StepOutput:
        """Losses of two views of the same images; the queues take in the keys (of all processes).

        L = (1 - weight) L_global + weight L_dense (thesis, Eq. 5.3). `order_G` is the permutation of Shuffling BN, the
        same on all processes; `random_nP` in [0, 1) is needed for random matching alone. The caller updates the key
        encoder first.
        """
        query: Encoded = self.query(queries_n3HW)
        keys = encode_shuffled(self.key, keys_n3HW, order_G)
        global_loss = info_nce(query.whole, keys.mine.whole, self.global_queue.keys, self.tau)
        loss, dense_loss, match = global_loss, None, None
        if self.dense_queue is not None:
            assert query.dense is not None
            assert keys.mine.dense is not None
            with torch.no_grad():
                drawn = query.dense.new_zeros(()) if random_nP is None else random_nP
                match = self._match(query, keys.mine, drawn)
                positive = gather_cells(keys.mine.dense, match)
            rows = query.dense.transpose(1, 2).flatten(0, 1)
            dense_loss = info_nce(rows, positive.transpose(1, 2).flatten(0, 1), self.dense_queue.keys, self.tau)
            loss = (1 - weight) * global_loss + weight * dense_loss
        if self.training:
            self.global_queue.enqueue(keys.all_whole)
            if self.dense_queue is not None:
                assert keys.all_pooled is not None
                self.dense_queue.enqueue(keys.all_pooled)
        return StepOutput(loss, global_loss.detach(), None if dense_loss is None else dense_loss.detach(), match)
