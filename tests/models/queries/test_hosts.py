"""What every query-based model must do, whatever it is inside."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from saliency_prompt.models.backbones.registry import build_backbone
from saliency_prompt.models.detector import Limits, Targets, alone
from saliency_prompt.models.queries.host import AnyHost
from saliency_prompt.models.queries.kernel_loss import kernel_loss
from saliency_prompt.models.queries.knet.model import KNet
from saliency_prompt.models.queries.mask2former.model import Mask2Former
from saliency_prompt.models.queries.prompting import Prompting, start_with_prompts
from saliency_prompt.models.queries.queryinst.model import QueryInst, repeat_mask_logits
from saliency_prompt.models.registry import DETECTORS, build_detector
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.training.registry import MODELS, load_training_config
from saliency_prompt.stages.instances.training import transfer

SIZE = (64, 96)
Build = Callable[..., AnyHost]


def knet(num_classes: int = 3) -> AnyHost:
    return KNet(build_backbone("resnet18"), num_classes, num_queries=6, channels=32, hidden=64)


def queryinst(num_classes: int = 3) -> AnyHost:
    return QueryInst(build_backbone("resnet18"), num_classes, num_queries=6, channels=32, hidden=64, stages=3)


def mask2former(num_classes: int = 3) -> AnyHost:
    return Mask2Former(
        build_backbone("resnet18"),
        num_classes,
        num_queries=6,
        channels=32,
        hidden=64,
        stages=3,
        encoder_stages=2,
        encoder_hidden=64,
        points=200,
    )


HOSTS = [knet, queryinst, mask2former]
every_host = pytest.mark.parametrize("build", HOSTS)


def seeded(build: Build, num_classes: int = 3) -> AnyHost:
    torch.manual_seed(0)
    host = build(num_classes)
    host.backbone.requires_grad_(False)
    return host


def objects(count: int, seed: int = 0) -> Targets:
    """Rectangles."""
    generator = torch.Generator().manual_seed(seed)
    masks, boxes = torch.zeros(count, *SIZE, dtype=torch.uint8), torch.zeros(count, 4)
    for mask, box in zip(masks, boxes, strict=True):
        y, x = (int(torch.randint(0, side - 24, (), generator=generator)) for side in SIZE)
        mask[y : y + 24, x : x + 20] = 1
        box[:] = torch.tensor([x, y, x + 20, y + 24])
    return Targets(masks, torch.arange(count) % 3, boxes, torch.ones(count))


def photographs(targets: list[Targets]) -> Tensor:
    """Noise on which each class has a colour of its own."""
    images = torch.randn(len(targets), 3, *SIZE, generator=torch.Generator().manual_seed(7)) * 0.1
    for image, target in zip(images, targets, strict=True):
        for mask, label in zip(target.masks, target.labels.tolist(), strict=True):
            image[label][mask.bool()] += 2
    return images


def without_gradient(host: AnyHost) -> list[str]:
    return [name for name, p in host.named_parameters() if p.requires_grad and p.grad is None]


@every_host
def test_a_batch_is_learnt(build: Build) -> None:
    host = seeded(build)
    host.train()
    host.backbone.eval()
    targets = [objects(2, 1), objects(1, 2)]
    images, optimizer = photographs(targets), torch.optim.AdamW(host.parameters(), lr=1e-3)
    totals = []
    for _ in range(30):
        losses = host.losses(images, [SIZE] * 2, targets, alone)
        total = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(host.parameters(), 1.0)
        optimizer.step()
        totals.append(total.item())
    assert sum(totals[-5:]) < 0.7 * sum(totals[:5])


@every_host
@pytest.mark.parametrize("counts", [[0, 0], [0, 2], [9, 1]])
def test_every_parameter_has_a_gradient(build: Build, counts: list[int]) -> None:
    """Without objects, with an image that has none, and with more objects than queries."""
    host = seeded(build).train()
    targets = [objects(count, seed) for seed, count in enumerate(counts)]
    pyramid = host.features(photographs(targets))
    initial = host.start(pyramid, [SIZE] * 2)
    refined = host.refine(initial, initial.queries)
    losses, pairs = host.criterion(initial, refined, targets, alone)
    seeds = torch.randn(sum(counts), 32, requires_grad=True)
    losses |= kernel_loss(refined, pairs, seeds, counts, weight=1.0, average=alone)
    total = torch.stack(list(losses.values())).sum()
    assert torch.isfinite(total)
    total.backward()
    assert without_gradient(host) == []
    assert seeds.grad is not None
    assert [[len(queries) for queries, _ in stage] for stage in pairs] == [[min(6, n) for n in counts]] * 3


@every_host
def test_boxes_outside_the_image_cost_nothing_else(build: Build) -> None:
    host = seeded(build).train()
    target = objects(3)
    outside = torch.tensor([[-50.0, -40.0, -10.0, -5.0], [-30.0, 10.0, 300.0, 500.0]])
    targets = [replace(target, boxes=torch.cat([outside, target.boxes[2:]]))]
    prompted = start_with_prompts(host, host.features(photographs(targets)), [SIZE], targets, Prompting(dropout=0.0))
    assert torch.isfinite(prompted.queries).all()
    refined = host.refine(prompted.initial, prompted.queries)
    losses, pairs = host.criterion(prompted.initial, refined, targets, alone)
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in host.parameters() if p.grad is not None)
    assert [len(queries) for stage in pairs for queries, _ in stage] == [3] * len(pairs)


@every_host
def test_two_processes_have_the_losses_of_one(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each image in a process of its own; counts are averaged over both."""
    host = seeded(build).eval()
    if isinstance(host, Mask2Former):
        points = torch.rand(1000, 2)
        monkeypatch.setattr(host, "draw", lambda sets, count, device: points[:count].expand(sets, -1, -1).to(device))
    targets = [objects(3, 1), objects(1, 2)]
    images = photographs(targets)
    whole = host.losses(images, [SIZE] * 2, targets, alone)
    counts: list[list[Tensor]] = [[], []]

    def record(rank: int, count: Tensor) -> Tensor:
        counts[rank].append(count.detach())
        return count.clamp_min(1)

    for rank in range(2):
        host.losses(images[rank : rank + 1], [SIZE], targets[rank : rank + 1], partial(record, rank))
    means = [(a + b).clamp_min(1) / 2 for a, b in zip(*counts, strict=True)]
    shares = []
    for rank in range(2):
        given = iter(means)
        found = host.losses(
            images[rank : rank + 1], [SIZE], targets[rank : rank + 1], lambda _, given=given: next(given)
        )
        shares.append(found)
    for name, value in whole.items():
        assert (shares[0][name] + shares[1][name]).item() / 2 == pytest.approx(value.item(), rel=1e-3, abs=1e-5), name


@pytest.mark.parametrize("build", [knet, mask2former])
def test_objects_without_a_mask_are_refused_by_models_of_masks(build: Build) -> None:
    targets = [replace(objects(2), has_mask=torch.tensor([True, False]))]
    with pytest.raises(UserError, match="a box alone"):
        seeded(build).losses(photographs(targets), [SIZE], targets, alone)


def test_objects_without_a_mask_teach_boxes_alone() -> None:
    host = seeded(queryinst).eval()
    whole = objects(2)
    blank = replace(whole, masks=whole.masks * torch.tensor([1, 0], dtype=torch.uint8)[:, None, None])
    images = photographs([whole])
    every = host.losses(images, [SIZE], [whole], alone)
    one, other = (
        host.losses(images, [SIZE], [replace(target, has_mask=torch.tensor([True, False]))], alone)
        for target in (whole, blank)
    )
    for name, value in one.items():
        assert torch.equal(value, other[name])
        assert name.startswith("mask_") or torch.equal(value, every[name])
    assert any(not torch.equal(one[f"mask_{stage}"], every[f"mask_{stage}"]) for stage in (1, 2, 3))


@every_host
@torch.inference_mode()
def test_an_image_does_not_see_its_neighbours(build: Build) -> None:
    host = seeded(build).eval()
    images = photographs([objects(2, seed) for seed in range(3)])
    together = host.find(images, [SIZE] * 3, Limits())[1]
    apart = host.find(images[1:2], [SIZE], Limits())[0]
    assert len(apart) == 18
    close = {"atol": 1e-3, "rtol": 1e-3}
    torch.testing.assert_close(apart.scores, together.scores, **close)

    def by_source(scores: Tensor, sources: Tensor, labels: Tensor) -> Tensor:
        return scores[(sources * 3 + labels).argsort()]

    torch.testing.assert_close(
        by_source(apart.scores, apart.sources, apart.labels),
        by_source(together.scores, together.sources, together.labels),
        **close,
    )
    order, other = (one.sources * 3 + one.labels for one in (apart, together))
    maps = apart.maps[order.argsort()].float() - together.maps[other.argsort()].float()
    assert maps.abs().mean() < 1e-3


@every_host
@torch.inference_mode()
def test_limits(build: Build) -> None:
    host = seeded(build).eval()
    images = photographs([objects(1)])
    found = host.find(images, [SIZE], Limits(most=5))[0]
    assert len(found) == len(found.maps) == len(found.labels) == len(found.sources) == 5
    assert found.vectors is not None
    assert found.vectors.shape == (5, 32)
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    assert 0 <= found.maps.min() <= found.maps.max() <= 1
    assert set(found.labels.tolist()) <= {0, 1, 2}
    assert set(found.sources.tolist()) <= set(range(6))
    middle = (found.scores[1] + found.scores[2]).item() / 2
    assert len(host.find(images, [SIZE], Limits(most=5, min_score=middle))[0]) == 2
    nothing = host.find(images, [SIZE], Limits(min_score=1.1))[0]
    assert len(nothing) == len(nothing.maps) == 0
    maps = host.look(images, [SIZE])
    assert maps.shape[:2] == (1, 6)
    assert 0 <= maps.min() <= maps.max() <= 1


@every_host
def test_diverged_parameters_crash_nothing(build: Build) -> None:
    """The loss is then no number, which the loop tells of."""
    host = seeded(build).train()
    with torch.no_grad():
        for name, parameter in host.named_parameters():
            if name.startswith(("stages.0.", "layers.0.")):
                parameter.fill_(float("nan"))
    losses = host.losses(photographs([objects(2)]), [SIZE], [objects(2)], alone)
    assert not torch.isfinite(torch.stack(list(losses.values())).sum())
    with torch.inference_mode():
        host.eval().find(photographs([objects(2)]), [SIZE], Limits())


@every_host
def test_half_precision(build: Build) -> None:
    host = seeded(build).train()
    targets = [objects(2)]
    with torch.autocast("cpu", torch.bfloat16):
        losses = host.losses(photographs(targets), [SIZE], targets, alone)
        with torch.inference_mode():
            found = host.eval().find(photographs(targets), [SIZE], Limits())
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert torch.isfinite(found[0].scores).all()
    assert found[0].scores.dtype == torch.float32


@every_host
def test_prompts_come_in_before_and_after_the_head(build: Build) -> None:
    host = seeded(build).eval()
    with torch.inference_mode():
        pyramid = host.features(photographs([objects(1), objects(1)]))
        assert host.prompt_map(pyramid).shape == (2, host.channels, 2, 3)
        assert host.learned.shape == (6, host.channels)
        shift = torch.randn(2, 6, host.channels)
        plain, moved = host.start(pyramid, [SIZE] * 2), host.start(pyramid, [SIZE] * 2, shift)
        last = host.refine(plain, plain.queries)[-1]
        for changed in (host.refine(moved, moved.queries)[-1], host.refine(plain, plain.queries + shift)[-1]):
            assert changed.queries.shape == last.queries.shape == (2, 6, host.channels)
            assert not torch.allclose(changed.queries, last.queries)


@every_host
def test_class_layers_are_those_whose_shape_depends_on_classes(build: Build) -> None:
    mine, other = build(3), build(5).state_dict()
    differing = {name for name, value in mine.state_dict().items() if other[name].shape != value.shape}
    assert differing == {name for name in other if name.startswith(tuple(mine.class_layers()))}


def test_masks_of_one_class_begin_those_of_several() -> None:
    state, several = queryinst(1).state_dict(), queryinst(4).state_dict()
    repeated = repeat_mask_logits(state, 4)
    assert {name: value.shape for name, value in repeated.items()} == {
        name: several[name].shape for name in several if ".logits." in name
    }
    name = "mask_heads.0.logits.weight"
    assert torch.equal(repeated[name][3], state[name][0])


def test_what_a_model_inherits_beside_what_fits() -> None:
    one = queryinst(1)
    several = queryinst(4)
    state = one.state_dict()
    _, fresh = transfer(several, state, skip=tuple(several.class_layers()))
    assert {name for name in fresh if ".logits." in name} == {n for n in state if ".logits." in n}
    several.repeat_masks = True
    taken, fresh = transfer(several, state, skip=tuple(several.class_layers()))
    assert {name for name in taken if ".logits." in name} == {n for n in state if ".logits." in n}
    assert all(".classes." in name for name in fresh)
    assert torch.equal(several.state_dict()["mask_heads.1.logits.bias"][2:3], state["mask_heads.1.logits.bias"])


def test_detectors_by_name() -> None:
    for name in ("knet", "queryinst", "mask2former"):
        overrides = ["model.queries=6", "model.channels=32", "model.hidden=64"]
        config = load_training_config(name, "tiny", overrides=overrides)
        made = build_detector(config, build_backbone("resnet18"), 1)
        assert isinstance(made, KNet | QueryInst | Mask2Former)
        assert (made.num_queries, made.channels, made.num_classes) == (6, 32, 1)
    assert set(DETECTORS) == set(MODELS)
