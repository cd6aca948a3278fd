"""Losses, costs and assignment against slow references."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saliency_prompt.models.losses import dice_loss, focal_loss
from saliency_prompt.models.matching import assign, match_cost


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_focal_loss_is_the_formula() -> None:
    logits, targets = torch.randn(4, 3), torch.randint(0, 2, (4, 3)).float()
    found = focal_loss(logits, targets)
    for i, j in itertools.product(range(4), range(3)):
        p = sigmoid(float(logits[i, j]))
        positive, negative = -0.25 * (1 - p) ** 2 * math.log(p), -0.75 * p**2 * math.log(1 - p)
        wanted = positive if targets[i, j] else negative
        assert float(found[i, j]) == pytest.approx(wanted, rel=1e-4)


def test_dice_loss_is_the_formula() -> None:
    logits, targets = torch.randn(3, 20), torch.rand(3, 20)
    for i, found in enumerate(dice_loss(logits, targets).tolist()):
        p = [sigmoid(float(x)) for x in logits[i]]
        t = targets[i].tolist()
        inter = sum(a * b for a, b in zip(p, t, strict=True))
        wanted = 1 - 2 * inter / ((sum(a * a for a in p) + 1e-3) + (sum(b * b for b in t) + 1e-3))
        assert found == pytest.approx(wanted, rel=1e-4)


def test_match_cost_is_the_formula() -> None:
    classes, masks = torch.randn(4, 3), torch.randn(4, 12)
    labels, targets = torch.tensor([2, 0]), torch.rand(2, 12)
    found = match_cost(classes, masks, labels, targets, (2.0, 4.0, 1.0))
    for n, m in itertools.product(range(4), range(2)):
        p, t = [sigmoid(float(x)) for x in masks[n]], targets[m].tolist()
        q = sigmoid(float(classes[n, labels[m]]))
        focal = -0.25 * (1 - q) ** 2 * math.log(q) - -0.75 * q**2 * math.log(1 - q)
        inter = sum(a * b for a, b in zip(p, t, strict=True))
        dice = -2 * inter / ((sum(a * a for a in p) + 1e-3) + (sum(b * b for b in t) + 1e-3))
        agree = sum(a * b + (1 - a) * (1 - b) for a, b in zip(p, t, strict=True))
        assert float(found[n, m]) == pytest.approx(2 * focal + 4 * dice - agree / 12, rel=1e-4, abs=1e-5)


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(0, 5))
def test_assignment_is_the_cheapest(seed: int, queries: int, objects: int) -> None:
    cost = torch.rand((queries, objects), generator=torch.Generator().manual_seed(seed))
    chosen, wanted = assign(cost)
    size = min(queries, objects)
    assert len(chosen) == len(set(chosen.tolist())) == len(set(wanted.tolist())) == size
    best = min(
        (
            sum(float(cost[q, m]) for q, m in zip(qs, ms, strict=True))
            for qs in itertools.permutations(range(queries), size)
            for ms in itertools.combinations(range(objects), size)
        ),
        default=0.0,
    )
    assert float(cost[chosen, wanted].sum()) == pytest.approx(best, abs=1e-5)


def test_assignment_survives_what_is_no_number() -> None:
    cost = torch.tensor([[float("nan"), 1.0], [float("inf"), 2.0], [0.0, float("-inf")]])
    queries, objects = assign(cost)
    assert len(queries) == 2
    assert (2, 1) in zip(queries.tolist(), objects.tolist(), strict=True)
