"""Correspondence and contrastive losses of DenseCL as pure functions (thesis section 5.2).

Shape legend: N images, P = S^2 grid cells, D backbone channels, E embedding channels, K queue length, M rows.
All vectors have unit length; the functions do not normalise.
"""

from typing import Any

import torch
from torch import Tensor

# Elements of the logits that are in memory at once: fits a core's cache, and bounds memory on a GPU, where the
# dense loss of 256 images against 65,536 negatives would otherwise take 3.3 GB.
_CHUNK_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 28}


def match_cells(query_NDP: Tensor, key_NDP: Tensor) -> Tensor:
    """c_i = argmax_j sim(query_i, key_j) within each image: two [N, D, P] -> int64 [N, P] (thesis, Eq. 5.4)."""
    sim_NPP = torch.bmm(query_NDP.transpose(1, 2), key_NDP)
    return sim_NPP.argmax(dim=2)


def gather_cells(key_NEP: Tensor, match_NP: Tensor) -> Tensor:
    """Of each image's cells the matched ones: [N, E, P] and [N, P] -> [N, E, P]."""
    return key_NEP.gather(2, match_NP.unsqueeze(1).expand(-1, key_NEP.shape[1], -1))


def mutual_matches(sim_PP: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs that are each other's nearest: similarities [P, P] -> cells i and j, int64 [m] each, by i."""
    forward = sim_PP.argmax(dim=1)
    backward = sim_PP.argmax(dim=0)
    cells = torch.arange(len(sim_PP), device=sim_PP.device)
    mutual = backward[forward] == cells
    return cells[mutual], forward[mutual]


def info_nce(query_ME: Tensor, positive_ME: Tensor, queue_EK: Tensor, tau: float) -> Tensor:
    """Mean contrastive loss of M queries, each with one positive and the queue's K negatives: a scalar.

    -log(exp(q.k+ / tau) / (exp(q.k+ / tau) + sum_k exp(q.k- / tau))): thesis, Eq. 5.1 and, with a row per grid
    cell, Eq. 5.2. Gradients flow into the queries alone. Under autocast the products with the queue are computed
    in its type; exponentials of unit vectors' products cannot overflow, since 1 / tau is subtracted first.
    """
    dtype = queue_EK.dtype
    if torch.is_autocast_enabled(query_ME.device.type):
        dtype = torch.get_autocast_dtype(query_ME.device.type)
    with torch.autocast(query_ME.device.type, enabled=False):
        negatives_M: Tensor = _NegativeSum.apply(query_ME, queue_EK.to(dtype), tau)
        positive_M = (query_ME * positive_ME.detach()).sum(1) / tau
        return (torch.logaddexp(positive_M, negatives_M) - positive_M).mean()


class _NegativeSum(torch.autograd.Function):
    """log sum_k exp(q.k / tau): [M, E], [E, K] -> [M], a chunk of rows at a time.

    The gradient, softmax(q.k / tau) k / tau, is computed on the way, so that no [M, K] matrix is ever kept.
    """

    @staticmethod
    def forward(ctx: Any, query_ME: Tensor, queue_EK: Tensor, tau: float) -> Tensor:
        rows = max(1, _CHUNK_ELEMENTS.get(query_ME.device.type, 1 << 26) // queue_EK.shape[1])
        scaled = (query_ME.detach() / tau).to(queue_EK.dtype)
        sums, gradients = [], []
        for chunk in torch.split(scaled, rows):
            weights = (chunk @ queue_EK).sub_(1 / tau).exp_()
            total = weights.sum(1, dtype=torch.float32)
            sums.append(total.log() + 1 / tau)
            if ctx.needs_input_grad[0]:
                gradients.append((weights @ queue_EK.T).float() / (total[:, None] * tau))
        if gradients:
            ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(sums)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None]:
        (gradient_ME,) = ctx.saved_tensors
        return gradient_ME * grad[0][:, None], None, None
