"""The contrast of pixels against two queries (ContrastMask, Eq. 1-4), and what the released code computes.

Eq. 4's superscripts are misprinted: each query is contrasted with its own side's keys against the other side's.
Shape legend: N regions, P pixels of a region, C channels. Key sets are bool [N, P].
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .keys import Keys, Lattice

EPS = 1e-8  # of cosines


def mean_inside(vectors_NPC: Tensor, set_NSS: Tensor) -> Tensor:
    """Mean vector of each region over a set of its pixels, 0 for an empty one: [N, C]."""
    weights = set_NSS.flatten(1).to(vectors_NPC.dtype)
    total = torch.einsum("np,npc->nc", weights, vectors_NPC)
    return total / weights.sum(1, keepdim=True).clamp_min(1)


def sum_over_processes(sums: Tensor) -> Tensor:
    """The sum over all processes, with the gradient of each of them; every process has to call it."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return sums
    from torch.distributed.nn.functional import all_reduce

    total: Tensor = all_reduce(sums)  # type: ignore[no-untyped-call]
    return total


def shared_queries(vectors_NPC: Tensor, cells: Lattice, use_N: Tensor, *, everywhere: bool = True) -> Tensor:
    """Eq. 2: the means over regions of their mean foreground and background vectors, [2, C].

    Over those of `use_N`, of all processes or (not `everywhere`) of this one; 0 without any.
    """
    use = use_N.to(vectors_NPC.dtype)
    means = torch.stack([mean_inside(vectors_NPC, cells.front), mean_inside(vectors_NPC, cells.back)])
    sums = torch.cat([torch.einsum("n,qnc->qc", use, means).flatten(), use.sum()[None]])
    sums = sum_over_processes(sums) if everywhere else sums
    queries: Tensor = (sums[:-1] / sums[-1].clamp_min(1)).view(2, -1)
    return queries


def cosines(vectors_NPC: Tensor, queries: Tensor) -> Tensor:
    """Cosine of every pixel with a query [C], or each region's own [N, C]: [N, P]."""
    own_NC = queries.expand(len(vectors_NPC), -1)
    products = torch.einsum("npc,nc->np", vectors_NPC, own_NC)
    lengths_N1 = torch.linalg.vector_norm(own_NC, dim=1, keepdim=True).clamp_min(EPS)
    found: Tensor = products / (torch.linalg.vector_norm(vectors_NPC, dim=2).clamp_min(EPS) * lengths_N1)
    return found


def term(phi_NP: Tensor, own_NP: Tensor, other_NP: Tensor, tau: float) -> Tensor:
    """Eq. 1 for each region: how much its own keys outweigh the other side's, averaged over its own keys: [N].

    Regions without keys of either kind are the caller's to leave out; their value is finite and means nothing.
    """
    scaled_NP = phi_NP / tau
    others_N1 = scaled_NP.masked_fill(~other_NP, -1 / (tau * EPS)).logsumexp(1, keepdim=True)
    surprise_NP = torch.logaddexp(scaled_NP, others_N1) - scaled_NP
    return (surprise_NP * own_NP).sum(1) / own_NP.sum(1).clamp_min(1)


def contrast_paper(vectors_NPC: Tensor, queries: Tensor, keys: Keys, tau: float) -> Tensor:
    """Eq. 4 for each region: [N]. Queries [2, C] of all, or [2, N, C]; hard keys have the temperature 1 - tau."""
    front, back = cosines(vectors_NPC, queries[0]), cosines(vectors_NPC, queries[1])
    easy_front, easy_back, hard_front, hard_back = (one.flatten(1) for one in keys.sets())
    return (
        term(front, easy_front, easy_back, tau)
        + term(front, hard_front, hard_back, 1 - tau)
        + term(back, easy_back, easy_front, tau)
        + term(back, hard_back, hard_front, 1 - tau)
    )


def contrast_code(vectors_NPC: Tensor, queries_2C: Tensor, keys: Keys, tau: float) -> Tensor:
    """The released code's loss: one number over the keys of all kept regions together.

    It departs from the paper in that keys are taken relative to the query, that the positive summand of the
    denominator has no temperature, and that all regions' keys meet.
    """
    kept = keys.kept[:, None]
    sides = [vectors_NPC[one.flatten(1) & kept] for one in keys.sets()]
    easy_front, easy_back, hard_front, hard_back = sides
    return (
        _term_of_code(queries_2C[0], easy_front, easy_back, tau)
        + _term_of_code(queries_2C[0], hard_front, hard_back, 1 - tau)
        + _term_of_code(queries_2C[1], easy_back, easy_front, tau)
        + _term_of_code(queries_2C[1], hard_back, hard_front, 1 - tau)
    )


def _term_of_code(query_C: Tensor, own_KC: Tensor, other_LC: Tensor, tau: float) -> Tensor:
    own_K = F.cosine_similarity(query_C[None], own_KC - query_C, dim=1)
    other_L = F.cosine_similarity(query_C[None], other_LC - query_C, dim=1)
    others = (other_L / tau).logsumexp(0)
    return (torch.logaddexp(own_K, others) - own_K / tau).sum() / max(1, len(own_K))


def warm_up(epoch: float, start: float, length: float, *, by_epoch: bool = False) -> float:
    """The loss's factor after so many epochs: from `start` linearly to 1 within `length` epochs.

    `by_epoch` is the released code's: epoch / length, at least `start`, and constant in an epoch.
    """
    if length <= 0 or epoch >= length:
        return 1.0
    if by_epoch:
        return max(start, int(epoch) / length)
    return start + (1 - start) * epoch / length
