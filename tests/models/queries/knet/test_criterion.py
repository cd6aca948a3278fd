"""K-Net's losses and pairs."""

import pytest
import torch

from saliency_prompt.models.detector import Targets, alone
from saliency_prompt.models.queries.kernel_loss import kernel_loss
from saliency_prompt.models.queries.knet.criterion import (
    KNetInitial,
    KNetRefined,
    Weights,
    knet_losses,
    shrink_masks,
)

WEIGHTS = Weights()


def world(counts: list[int], classes: int = 2) -> tuple[KNetInitial, list[KNetRefined], list[Targets]]:
    torch.manual_seed(sum(counts))
    batch, queries = len(counts), 6

    def leaf(*shape: int) -> torch.Tensor:
        return torch.randn(shape, requires_grad=True)

    initial = KNetInitial(leaf(batch, queries, 4), leaf(batch, queries, 4, 4), leaf(batch, classes, 4, 4), leaf(1))
    stages = [
        KNetRefined(leaf(batch, queries, 4), leaf(batch, queries, classes), leaf(batch, queries, 4, 4)) for _ in "ab"
    ]
    targets = [
        Targets(
            (torch.rand(n, 32, 32) > 0.5).to(torch.uint8),
            torch.randint(0, classes, (n,)),
            torch.zeros(n, 4),
            torch.ones(n),
        )
        for n in counts
    ]
    return initial, stages, targets


@pytest.mark.parametrize("counts", [[2, 1], [0, 2], [0, 0], [9, 1]])
def test_losses_are_finite_and_reach_everything(counts: list[int]) -> None:
    """No object at all, one image without, and more objects than queries."""
    initial, stages, targets = world(counts)
    seeds = torch.randn(sum(counts), 4, requires_grad=True)
    losses, pairs = knet_losses(initial, stages, targets, WEIGHTS, alone)
    losses |= kernel_loss(stages, pairs, seeds, counts, weight=1.0, average=alone)
    total = torch.stack(list(losses.values())).sum()
    assert torch.isfinite(total)
    total.backward()
    for stage in stages:
        assert stage.masks.grad is not None
        assert stage.classes.grad is not None
        assert stage.queries.grad is not None
    assert seeds.grad is not None
    assert [[len(q) for q, _ in stage] for stage in pairs] == [[min(6, n) for n in counts]] * 2


def test_a_stage_is_matched_on_the_masks_before_it() -> None:
    initial, stages, targets = world([3])
    with torch.no_grad():  # the first masks fit objects 0, 1, 2 by queries 5, 4, 3
        initial.masks.fill_(-9.0)
        small = torch.nn.functional.interpolate(targets[0].masks[None].float(), (4, 4), mode="area")[0]
        for place, query in enumerate((5, 4, 3)):
            initial.masks[0, query] = (small[place] - 0.5) * 40
    _, pairs = knet_losses(initial, stages, targets, WEIGHTS, alone)
    assert pairs[0][0][0].tolist() == [5, 4, 3]
    assert pairs[0][0][1].tolist() == [0, 1, 2]


def test_the_kernel_loss_is_of_matched_pairs_alone() -> None:
    initial, stages, targets = world([2, 1])
    seeds = torch.randn(3, 4)
    _, pairs = knet_losses(initial, stages, targets, WEIGHTS, alone)
    losses = kernel_loss(stages, pairs, seeds, [2, 1], weight=0.5, average=alone)
    for number, stage in enumerate(stages):
        terms = []
        for image, first in ((0, 0), (1, 2)):
            for query, item in zip(*pairs[number][image], strict=True):
                cosine = torch.cosine_similarity(stage.queries[image, query], seeds[first + item], dim=0)
                terms.append(1 - cosine.item())
        assert losses[f"kernel_{number + 1}"].item() == pytest.approx(0.5 * sum(terms) / len(terms), rel=1e-4)


def test_perfect_masks_cost_nothing() -> None:
    initial, stages, targets = world([2])
    blocks = targets[0].masks[:, :8, :8].repeat_interleave(4, 1).repeat_interleave(4, 2)  # sharp after shrinking
    sharp = Targets(blocks, targets[0].labels, targets[0].boxes, targets[0].weights)
    logits = torch.full((1, 6, 8, 8), -30.0)
    logits[0, :2] = (shrink_masks(blocks) - 0.5) * 60
    perfect = KNetInitial(initial.queries, logits, initial.semantic, initial.features)
    stage = KNetRefined(stages[0].queries, stages[0].classes, logits)
    losses, _ = knet_losses(perfect, [stage], [sharp], WEIGHTS, alone)
    assert float(losses["initial_dice"]) == pytest.approx(0, abs=1e-3)
    assert float(losses["mask_1"]) == pytest.approx(0, abs=1e-3)


def test_the_semantic_map_is_of_every_pixel_that_an_object_touches() -> None:
    initial, stages, targets = world([1])
    masks = torch.zeros(1, 32, 32, dtype=torch.uint8)
    masks[0, :9, :8] = 1  # a pixel into the third row of four
    target = Targets(masks, torch.tensor([1]), targets[0].boxes, targets[0].weights)
    semantic = torch.full((1, 2, 8, 8), -40.0)
    semantic[0, 1, :2, :2] = 40
    rows = (shrink_masks(masks)[0] > 0).sum(0)[0]
    assert rows == 2  # bilinear reads the two middle pixels of four: rows 9 and 10 are not among them
    masks[0, :10] = masks[0, 8].clone()
    assert (shrink_masks(masks)[0, 2, 0]) == 0.5  # of which one is inside: it counts
    semantic[0, 1, 2, :2] = 40
    made = KNetInitial(initial.queries, initial.masks, semantic, initial.features)
    losses, _ = knet_losses(made, stages, [target], WEIGHTS, alone)
    assert float(losses["semantic"]) == pytest.approx(0, abs=1e-5)
