"""Losses and correspondence against slow references written with loops, in double precision."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from saliency_prompt.models.densecl import losses
from saliency_prompt.models.densecl.losses import gather_cells, info_nce, match_cells, mutual_matches


def unit(*shape: int, dim: int = 1, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=dim)


def slow_info_nce(query: Tensor, positive: Tensor, queue: Tensor, tau: float) -> float:
    total = 0.0
    for q, k in zip(query.double().tolist(), positive.double().tolist(), strict=True):
        top = math.exp(sum(a * b for a, b in zip(q, k, strict=True)) / tau)
        below = top
        for negative in queue.double().T.tolist():
            below += math.exp(sum(a * b for a, b in zip(q, negative, strict=True)) / tau)
        total -= math.log(top / below)
    return total / len(query)


@pytest.mark.parametrize("tau", [0.07, 0.2, 1.0])
def test_the_loss_is_the_mean_of_minus_log_softmax(tau: float) -> None:
    query, positive, queue = unit(7, 5), unit(7, 5, seed=1), unit(5, 11, dim=0, seed=2)
    assert info_nce(query, positive, queue, tau).item() == pytest.approx(
        slow_info_nce(query, positive, queue, tau), 1e-5
    )


def test_the_gradient_is_that_of_cross_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(losses._CHUNK_ELEMENTS, "cpu", 3 * 11)  # chunks of 3, 3 and 1 rows
    query, positive, queue = unit(7, 5).requires_grad_(), unit(7, 5, seed=1).requires_grad_(), unit(5, 11, dim=0)
    info_nce(query, positive, queue, 0.2).backward()
    assert positive.grad is None
    again = query.detach().clone().requires_grad_()
    logits = torch.cat([(again * positive.detach()).sum(1, keepdim=True), again @ queue], 1) / 0.2
    F.cross_entropy(logits, torch.zeros(7, dtype=torch.int64)).backward()
    assert query.grad is not None
    assert again.grad is not None
    torch.testing.assert_close(query.grad, again.grad)


def test_bf16_under_autocast_is_close() -> None:
    query, positive, queue = unit(64, 32), unit(64, 32, seed=1), unit(32, 512, dim=0, seed=2)
    exact = info_nce(query, positive, queue, 0.2)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = info_nce(query, positive, queue, 0.2)
    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(exact.item(), rel=2e-3)


def test_the_loss_is_finite_at_the_extremes() -> None:
    same = unit(4, 8)
    for positive, negative in ((same, -same), (-same, same)):
        assert info_nce(same, positive, negative.T.contiguous(), 0.01).isfinite()


def test_matches_are_the_argmax_within_each_image() -> None:
    query, key = unit(3, 6, 9), unit(3, 6, 9, seed=1)
    match = match_cells(query, key)
    for n in range(3):
        for i in range(9):
            products = [float(query[n, :, i] @ key[n, :, j]) for j in range(9)]
            assert match[n, i] == max(range(9), key=products.__getitem__)
    gathered = gather_cells(key, match)
    assert torch.equal(gathered[2, :, 4], key[2, :, match[2, 4]])


def test_mutual_matches_choose_each_other() -> None:
    sim = torch.tensor([[0.9, 0.1, 0.0], [0.95, 0.2, 0.1], [0.0, 0.3, 0.2]])
    first, second = mutual_matches(sim)
    assert (first.tolist(), second.tolist()) == ([1, 2], [0, 1])
