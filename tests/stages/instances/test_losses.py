"""Losses, costs and assignment against slow references."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saliency_prompt.models.instances.host import Initial, Stage
from saliency_prompt.models.losses import dice_loss, focal_loss
from saliency_prompt.models.matching import assign, match_cost
from saliency_prompt.stages.instances.criterion import Targets, Weights, instance_losses, shrink_masks


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


def world(counts: list[int], classes: int = 2) -> tuple[Initial, list[Stage], list[Targets]]:
    torch.manual_seed(sum(counts))
    batch, queries = len(counts), 6

    def leaf(*shape: int) -> torch.Tensor:
        return torch.randn(shape, requires_grad=True)

    initial = Initial(
        leaf(batch, queries, 4), leaf(queries, 4), leaf(batch, queries, 4, 4), leaf(batch, classes, 4, 4), leaf(1)
    )
    stages = [Stage(leaf(batch, queries, 4), leaf(batch, queries, classes), leaf(batch, queries, 4, 4)) for _ in "ab"]
    targets = [
        Targets(shrink_masks((torch.rand(n, 32, 32) > 0.5).float()), torch.randint(0, classes, (n,))) for n in counts
    ]
    return initial, stages, targets


@pytest.mark.parametrize("counts", [[2, 1], [0, 2], [0, 0], [9, 1]])
def test_losses_are_finite_and_reach_everything(counts: list[int]) -> None:
    """No object at all, one image without, and more objects than queries."""
    initial, stages, targets = world(counts)
    seeds = torch.randn(sum(counts), 4, requires_grad=True)
    losses, pairs = instance_losses(initial, stages, targets, Weights(), seeds=seeds)
    total = torch.stack(list(losses.values())).sum()
    assert torch.isfinite(total)
    total.backward()
    for stage in stages:
        assert stage.masks.grad is not None
        assert stage.classes.grad is not None
    assert [[len(q) for q, _ in stage] for stage in pairs] == [[min(6, n) for n in counts]] * 2


def test_a_stage_is_matched_on_the_masks_before_it() -> None:
    initial, stages, targets = world([3])
    with torch.no_grad():  # the first masks fit objects 0, 1, 2 by queries 5, 4, 3
        initial.masks.fill_(-9.0)
        small = torch.nn.functional.interpolate(targets[0].masks[None], (4, 4), mode="area")[0]
        for place, query in enumerate((5, 4, 3)):
            initial.masks[0, query] = (small[place] - 0.5) * 40
    _, pairs = instance_losses(initial, stages, targets, Weights())
    assert pairs[0][0][0].tolist() == [5, 4, 3]
    assert pairs[0][0][1].tolist() == [0, 1, 2]


def test_the_kernel_loss_is_of_matched_pairs_alone() -> None:
    initial, stages, targets = world([2, 1])
    seeds = torch.randn(3, 4)
    losses, pairs = instance_losses(initial, stages, targets, Weights(), seeds=seeds)
    for number, stage in enumerate(stages):
        terms = []
        for image, first in ((0, 0), (1, 2)):
            for query, item in zip(*pairs[number][image], strict=True):
                cosine = torch.cosine_similarity(stage.queries[image, query], seeds[first + item], dim=0)
                terms.append(1 - cosine.item())
        assert losses[f"kernel_{number + 1}"].item() == pytest.approx(sum(terms) / len(terms), rel=1e-4)


def test_perfect_masks_cost_nothing() -> None:
    initial, stages, targets = world([2])
    sharp = Targets((targets[0].masks > 0.5).float(), targets[0].labels)
    logits = torch.full((1, 6, 8, 8), -30.0)
    logits[0, :2] = (sharp.masks - 0.5) * 60
    perfect = Initial(initial.queries, initial.learned, logits, None, initial.memory)
    losses, _ = instance_losses(perfect, [Stage(stages[0].queries, stages[0].classes, logits)], [sharp], Weights())
    assert float(losses["initial_dice"]) == pytest.approx(0, abs=1e-3)
    assert float(losses["mask_1"]) == pytest.approx(0, abs=1e-3)
