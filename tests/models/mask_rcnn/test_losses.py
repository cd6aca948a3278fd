"""The contrastive loss against its equations written as loops."""

import math

import pytest
import torch
from torch import Tensor

from saliency_prompt.models.mask_rcnn.keys import Keys, Lattice
from saliency_prompt.models.mask_rcnn.losses import (
    contrast_code,
    contrast_paper,
    cosines,
    mean_inside,
    shared_queries,
    term,
    warm_up,
)

N, S, C = 4, 5, 6


@pytest.fixture
def vectors() -> Tensor:
    return torch.randn(N, S * S, C, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def keys() -> Keys:
    generator = torch.Generator().manual_seed(1)
    choice = torch.randint(0, 6, (N, S, S), generator=generator)
    return Keys(choice == 0, choice == 1, choice == 2, choice == 3, torch.tensor([True, True, False, True]))


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def loop_term(query: Tensor, own: list[Tensor], other: list[Tensor], tau: float) -> float:
    """Equation 1, averaged over own keys."""
    total = 0.0
    for k in own:
        positive = math.exp(cosine(query, k) / tau)
        negative = sum(math.exp(cosine(query, o) / tau) for o in other)
        total -= math.log(positive / (positive + negative))
    return total / len(own)


def inside(vectors: Tensor, one: Tensor, n: int) -> list[Tensor]:
    return [vectors[n, i] for i in one[n].flatten().nonzero().flatten()]


def test_shared_queries_are_means_of_means_over_regions_with_both_sides(vectors: Tensor) -> None:
    cells = Lattice(torch.rand(N, S, S) > 0.6, torch.rand(N, S, S) > 0.7)
    cells.front[2] = False
    found = shared_queries(vectors, cells, cells.sides())
    for found_C, one in zip(found, (cells.front, cells.back), strict=True):
        means = [torch.stack(inside(vectors, one, n)).mean(0) for n in (0, 1, 3)]
        torch.testing.assert_close(found_C, torch.stack(means).mean(0))
    assert torch.equal(shared_queries(vectors, cells, torch.zeros(N, dtype=torch.bool)), torch.zeros_like(found))
    assert mean_inside(vectors, cells.front)[2].abs().max() == 0


@pytest.mark.parametrize("tau", [0.7, 0.2])
def test_the_papers_loss_is_equation_4(vectors: Tensor, keys: Keys, tau: float) -> None:
    queries = torch.randn(2, C, dtype=torch.float64)
    found = contrast_paper(vectors, queries, keys, tau)
    for n in range(N):
        ef, eb, hf, hb = (inside(vectors, one, n) for one in keys.sets())
        wanted = loop_term(queries[0], ef, eb, tau) + loop_term(queries[0], hf, hb, 1 - tau)
        wanted += loop_term(queries[1], eb, ef, tau) + loop_term(queries[1], hb, hf, 1 - tau)
        assert found[n].item() == pytest.approx(wanted, rel=1e-9)


def test_each_region_may_have_queries_of_its_own(vectors: Tensor, keys: Keys) -> None:
    own = torch.randn(2, N, C, dtype=torch.float64)
    found = contrast_paper(vectors, own, keys, 0.7)
    for n in range(N):
        torch.testing.assert_close(found[n], contrast_paper(vectors, own[:, n], keys, 0.7)[n])


def test_the_codes_loss_pools_keys_and_centres_them(vectors: Tensor, keys: Keys) -> None:
    queries, tau = torch.randn(2, C, dtype=torch.float64), 0.3
    pooled = [[k for n in (0, 1, 3) for k in inside(vectors, one, n)] for one in keys.sets()]

    def loop(query: Tensor, own: list[Tensor], other: list[Tensor], t: float) -> float:
        total = 0.0
        for k in own:
            score = cosine(query, k - query)
            negative = sum(math.exp(cosine(query, o - query) / t) for o in other)
            total -= math.log(math.exp(score / t) / (math.exp(score) + negative))
        return total / len(own)

    ef, eb, hf, hb = pooled
    wanted = loop(queries[0], ef, eb, tau) + loop(queries[0], hf, hb, 1 - tau)
    wanted += loop(queries[1], eb, ef, tau) + loop(queries[1], hb, hf, 1 - tau)
    assert contrast_code(vectors, queries, keys, tau).item() == pytest.approx(wanted, rel=1e-9)


def test_perfect_and_hopeless_contrast() -> None:
    """Own keys at the query, the others opposite: log(1 + m exp(-2 / tau)); the reverse is 2 / tau more."""
    query = torch.tensor([1.0, 0.0])
    vectors = torch.tensor([[[3.0, 0.0], [-2.0, 0.0], [-5.0, 0.0]]])
    own, other = torch.tensor([[True, False, False]]), torch.tensor([[False, True, True]])
    phi = cosines(vectors, query)
    assert phi[0].tolist() == [1, -1, -1]
    assert term(phi, own, other, 0.5).item() == pytest.approx(math.log(1 + 2 * math.exp(-4)), rel=1e-5)
    assert term(-phi, own, other, 0.5).item() == pytest.approx(math.log(1 + 2 * math.exp(4)), rel=1e-5)


def test_gradients_are_finite_where_sets_are_empty_and_vectors_are_zero() -> None:
    vectors = torch.zeros(2, S * S, C, requires_grad=True)
    empty = torch.zeros(2, S, S, dtype=torch.bool)
    keys = Keys(empty, empty, empty, empty, empty[:, 0, 0])
    queries = shared_queries(vectors, Lattice(empty, empty), empty[:, 0, 0])
    found = contrast_paper(vectors, queries, keys, 0.7)
    found.sum().backward()
    assert found.isfinite().all()
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()


def test_gradients_are_those_of_the_equation(vectors: Tensor, keys: Keys) -> None:
    cells = Lattice(keys.easy_front | keys.hard_front, keys.easy_back | keys.hard_back)

    def loss(z: Tensor) -> Tensor:
        return contrast_paper(z, shared_queries(z, cells, cells.sides()), keys, 0.7)

    assert torch.autograd.gradcheck(loss, vectors.requires_grad_())


def test_warm_up() -> None:
    assert [warm_up(e, 0.25, 4) for e in (0, 1, 2, 4, 9)] == [0.25, 0.4375, 0.625, 1, 1]
    assert [warm_up(e, 0.25, 4, by_epoch=True) for e in (0, 0.9, 1.5, 2, 3.99, 4)] == [0.25, 0.25, 0.25, 0.5, 0.75, 1]
    assert warm_up(0, 0.25, 0) == 1
    assert warm_up(math.inf, 0.25, 4) == 1
