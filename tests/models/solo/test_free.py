"""FreeSOLO's losses and embedding: every switch, and what the released program got wrong."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from saliency_prompt.models.detector import Limits, Targets, alone
from saliency_prompt.models.solo.build import build, build_free
from saliency_prompt.models.solo.criterion import assign
from saliency_prompt.models.solo.free import FreeSolo, without_lost
from saliency_prompt.models.solo.targets import shrink
from saliency_prompt.models.weak import find_affinity, pairwise_sums, projection_loss
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.training.freesolo import FreeSoloConfig, FreeSoloTraining, WeakLossConfig
from saliency_prompt.schemas.training.registry import load_training_config
from saliency_prompt.schemas.training.solo import SOLO_OPTIONS, SoloConfig
from tiny_backbone import TinyBackbone

SIZE = (96, 128)


def number(value: Tensor | float) -> float:
    return float(torch.as_tensor(value).detach())


def model_of(*overrides: str) -> FreeSolo:
    config = load_training_config("freesolo", "tiny", overrides=overrides)
    assert isinstance(config, FreeSoloTraining)
    torch.manual_seed(0)
    return build_free(TinyBackbone(), 1, config.model, config.weak)


def objects(*boxes: tuple[int, int, int, int], vectors: bool = True) -> Targets:
    masks = torch.zeros(len(boxes), *SIZE, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = 1
    rng = torch.Generator().manual_seed(1)
    return Targets(
        masks,
        torch.zeros(len(boxes), dtype=torch.long),
        torch.tensor(boxes).reshape(-1, 4).float(),
        torch.ones(len(boxes)),
        vectors=torch.randn(len(boxes), 16, generator=rng) if vectors else None,
    )


def images(count: int = 1) -> Tensor:
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(2))


def losses_of(model: FreeSolo, targets: Sequence[Targets], **more: object) -> dict[str, Tensor]:
    return model.losses(images(len(targets)), [SIZE] * len(targets), targets, alone, **more)  # type: ignore[arg-type]


BOTH = ((10, 10, 40, 50), (60, 20, 120, 80))


@pytest.mark.parametrize("targets", [objects(*BOTH), objects(), objects(*BOTH, vectors=False)])
@pytest.mark.parametrize("overrides", [(), ("weak.masks=full",), ("weak.reduction=global_mean",)])
def test_every_parameter_has_a_gradient(targets: Targets, overrides: tuple[str, ...]) -> None:
    model = model_of(*overrides)
    losses = losses_of(model, [targets])
    assert all(bool(value.isfinite()) for value in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_each_switch_turns_off_its_own_loss_alone() -> None:
    whole = losses_of(model_of(), [objects(*BOTH)])
    switches = {"maximum": "mask_max", "average": "mask_average", "pairwise": "mask_pairwise"}
    for switch, name in switches.items():
        without = losses_of(model_of(f"weak.{switch}=0"), [objects(*BOTH)])
        assert number(whole[name]) > 0
        assert number(without[name]) == 0
        assert all(torch.equal(without[key], whole[key]) for key in whole if key != name)
    assert "embedding" not in losses_of(model_of("weak.embedding=0"), [objects(*BOTH)])
    assert "embedding" not in losses_of(model_of("model.embedding=0"), [objects(*BOTH)])
    assert set(losses_of(model_of("weak.masks=full"), [objects(*BOTH)])) == {"class", "mask", "embedding"}


def test_the_pairwise_loss_comes_in_slowly() -> None:
    whole, half = (losses_of(model_of(), [objects(*BOTH)], warmth=one) for one in (1.0, 0.5))
    assert number(half["mask_pairwise"]) == pytest.approx(number(whole["mask_pairwise"]) / 2)
    assert torch.equal(half["mask_max"], whole["mask_max"])


@pytest.mark.parametrize("reduction", ["per_level", "global_mean"])
def test_losses_are_those_of_a_loop_over_levels_and_cells(reduction: str) -> None:
    model = model_of(f"weak.reduction={reduction}")
    targets = [objects(*BOTH, (30, 30, 110, 90)), objects((5, 5, 20, 25))]
    losses = losses_of(model, targets)
    levels = model.head(model.features(images(2)))
    colours = images(2) * torch.tensor(model.backbone.std).view(1, 3, 1, 1)
    colours = (colours + torch.tensor(model.backbone.mean).view(1, 3, 1, 1)).round().clamp(0, 255)
    affinity = find_affinity(colours, [SIZE] * 2)
    sums: dict[int, list[tuple[float, float, float, float]]] = {}
    cosines = []
    for one in assign(targets, model.options, SIZE):
        level, target = levels[one.number], targets[one.image]
        for cell, owner in zip(one.cells.cells, one.cells.objects, strict=True):
            logits = model.head.logits(level, one.number, one.image, cell[None])
            coarse = shrink(target.masks, 4)[owner][None].float()
            loss, pairs = pairwise_sums(logits, coarse, affinity, one.image)
            outer = [number(projection_loss(logits.sigmoid(), coarse, how)) for how in ("max", "mean")]  # type: ignore[arg-type]
            sums.setdefault(one.number, []).append((*outer, number(loss), number(pairs)))
            assert level.vectors is not None
            assert target.vectors is not None
            said, wanted = level.vectors[one.image].flatten(1)[:, cell], target.vectors[owner]
            cosines.append(1 - number((said @ wanted) / said.norm() / wanted.norm()))
    rows = list(sums.values())
    assert len(rows) > 1
    if reduction == "global_mean":
        rows = [[cell for row in rows for cell in row]]

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    assert number(losses["mask_max"]) == pytest.approx(mean([mean([c[0] for c in row]) for row in rows]), rel=1e-4)
    average = 0.1 * mean([mean([c[1] for c in row]) for row in rows])
    assert number(losses["mask_average"]) == pytest.approx(average, rel=1e-4)
    pairwise = mean([sum(c[2] for c in row) / max(1, sum(c[3] for c in row)) for row in rows])
    assert number(losses["mask_pairwise"]) == pytest.approx(pairwise, rel=1e-4)
    assert number(losses["embedding"]) == pytest.approx(4 * mean(cosines), rel=1e-4)


def test_masks_are_learned_on_the_padding_that_they_are_found_with() -> None:
    model, pixels = model_of().eval(), images(2)
    left = objects((10, 10, 40, 50), (4, 60, 60, 90))
    narrow = replace(left, masks=left.masks[:, :, :64])
    alone_there = model.losses(pixels[:1, :, :, :64], [(96, 64)], [narrow], alone)
    beside_a_wide_one = model.losses(pixels, [(96, 64), SIZE], [left, objects()], alone)
    for name in ("mask_max", "mask_average", "mask_pairwise", "embedding"):
        assert number(beside_a_wide_one[name]) == pytest.approx(number(alone_there[name]), rel=1e-4), name


def test_the_embedding_learns() -> None:
    """The released program multiplies its prediction by zero and calls that the loss."""
    model = model_of()
    loss = losses_of(model, [objects(*BOTH)])["embedding"]
    loss.backward()
    assert model.head.embedding is not None
    gradient = model.head.embedding.weight.grad
    assert gradient is not None
    assert number(gradient.abs().max()) > 0
    other = objects(*BOTH)
    assert other.vectors is not None
    moved = losses_of(model, [replace(other, vectors=-other.vectors)])["embedding"]
    assert number(moved) != pytest.approx(number(loss))


def test_boxes_that_are_read_as_another_kind_go_to_another_level() -> None:
    """The released program writes corners and reads them as a corner and a size."""
    model = model_of()
    target = objects((90, 60, 110, 80))
    left, top, right, bottom = target.boxes[0].tolist()
    misread = replace(target, boxes=torch.tensor([[left, top, left + right, top + bottom]]))

    def levels(one: Targets) -> set[int]:
        return {found.number for found in assign([one], model.options, SIZE) if len(found.cells.cells)}

    assert levels(target) == {0, 1}  # a scale of 20 pixels
    assert levels(misread) == {2, 3}


def test_masks_that_vanish_at_a_quarter_go_with_their_cells() -> None:
    target = objects((10, 10, 40, 50), (61, 21, 62, 22))
    kept = without_lost(target)
    assert len(kept.labels) == 1
    assert kept.vectors is not None
    assert len(kept.vectors) == 1
    alone_ = losses_of(model_of(), [objects((10, 10, 40, 50))])
    both = losses_of(model_of(), [target])
    assert torch.equal(both["class"], alone_["class"])


def test_rows_at_the_bottom_are_not_compared() -> None:
    target = objects((10, 80, 60, 96))
    whole, cut = (losses_of(model_of(), [target], comparable=[(rows, SIZE[1])])["mask_pairwise"] for rows in (96, 86))
    assert number(whole) != number(cut)


def test_what_is_found_says_what_it_is_like() -> None:
    model = model_of("model.class_score=0.001", "model.min_score=0").eval()
    found = model.find(images(2), [SIZE, (64, 96)], Limits(5))
    for one in found:
        assert one.vectors is not None
        assert one.vectors.shape == (len(one), 16)
    assert len(found[0])
    levels = model.head(model.features(images(2)[:1]))
    cells = torch.cat([level.vectors[0].flatten(1) for level in levels if level.vectors is not None], 1)
    assert found[0].vectors is not None
    assert torch.allclose(found[0].vectors, cells[:, found[0].sources].T, atol=1e-5)
    plain = model_of("model.class_score=0.001", "model.min_score=0", "model.embedding=0").eval()
    assert all(one.vectors is None for one in plain.find(images(1), [SIZE], Limits(5)))


def test_it_learns_one_picture() -> None:
    model = model_of()
    target = objects(*BOTH)
    picture = torch.zeros(1, 3, *SIZE)
    for value, mask in zip((1.5, -1.5), target.masks, strict=True):
        picture[0, :, mask.bool()] = value
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    before = None
    for _ in range(30):
        losses = model.losses(picture, [SIZE], [target], alone)
        total = torch.stack(list(losses.values())).sum()
        before = number(total) if before is None else before
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10)
        optimizer.step()
    assert number(total) < 0.75 * before


def test_other_heads_are_refused() -> None:
    for bad in ({"head": "solo"}, {"mask_feature": "separate"}, {"contours": True}):
        with pytest.raises(ValueError, match="set "):
            FreeSoloConfig.model_validate(bad)
    assert WeakLossConfig().embedding == 4.0
    with pytest.raises(UserError, match="round1_embedding"):
        load_training_config("freesolo", None, None, ["weak.round1_embedding=none"])


def test_masks_that_are_not_known_teach_the_class_alone() -> None:
    """Limited masks: the same classes, and no mask of those, which are placed by their boxes."""
    torch.manual_seed(0)
    solo = build(TinyBackbone(), 3, SoloConfig.model_validate(SOLO_OPTIONS["solov2-tiny"]))
    target = replace(objects(*BOTH, vectors=False), labels=torch.tensor([0, 2]))
    whole, half, none = (
        solo.losses(images(), [SIZE], [replace(target, has_mask=torch.tensor(known))], alone)
        for known in ([True, True], [True, False], [False, False])
    )
    first = replace(
        target, masks=target.masks[:1], boxes=target.boxes[:1], labels=target.labels[:1], weights=target.weights[:1]
    )
    only = solo.losses(images(), [SIZE], [first], alone)
    assert torch.allclose(half["class"], whole["class"], rtol=1e-5)
    assert torch.allclose(none["class"], whole["class"], rtol=1e-5)
    assert torch.allclose(half["mask"], only["mask"], rtol=1e-5)  # as if the other one were not there, its count too
    assert number(half["mask"]) != pytest.approx(number(whole["mask"]))
    assert number(none["mask"]) == 0
    hidden = target.masks.clone()
    hidden[1, 60:] = 0  # whose mask may not be known is not looked at
    seen = solo.losses(images(), [SIZE], [replace(target, masks=hidden, has_mask=torch.tensor([True, False]))], alone)
    assert torch.equal(seen["class"], half["class"])
