"""Mask R-CNN and ContrastMask as detectors: gradients, what is detached, bad targets, and averaging."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from region_objects import SIZES, contrast_mask, images, objects, plain
from saliency_prompt.models.detector import Limits, Targets, alone
from saliency_prompt.models.mask_rcnn.model import MaskRCNN

VARIANTS = {
    "plain": plain,
    "cam": lambda: contrast_mask(cl_head=False),
    "add": contrast_mask,
    "concat": lambda: contrast_mask(contrast={"fuse": "concat", "attention": True}),
    "own queries": lambda: contrast_mask(contrast={"query_sharing": False}),
    "code": lambda: contrast_mask(code_compat=True),
    "without cam": lambda: contrast_mask(cam=False),
}
BATCHES = {
    "base": [objects(3), objects(2)],
    "only novel": [objects(3, [False] * 3), objects(1, [False])],
    "mixed": [objects(3, [True, False, True]), objects(0)],
    "nothing": [objects(0), objects(0)],
}


def train_losses(model: MaskRCNN, targets: list[Targets], seed: int = 1) -> dict[str, Tensor]:
    model.train()
    model.backbone.eval()
    torch.manual_seed(seed)
    return model.losses(images(), SIZES, targets, alone)


def gradients(model: MaskRCNN, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_gets_a_gradient_whatever_the_batch(variant: str) -> None:
    model = VARIANTS[variant]()
    for name, targets in BATCHES.items():
        losses = train_losses(model, targets)
        found = gradients(model, sum(losses.values()))
        assert [n for n, _ in model.named_parameters() if n not in found] == [], name
        assert all(g.isfinite().all() for g in found.values()), name
        assert all(value.isfinite() for value in losses.values()), name
        assert (losses["mask"] > 0) == (name in {"base", "mixed"})
        assert (losses["box"] > 0) == (name != "nothing")
        if "contrast" in losses:
            assert (losses["contrast"] > 0) == (name != "nothing")


def test_the_contrast_does_not_reach_the_pyramid_nor_the_boxes() -> None:
    model = contrast_mask()
    found = gradients(model, train_losses(model, BATCHES["mixed"])["contrast"])
    moved = {name for name, g in found.items() if g.abs().max() > 0}
    assert moved
    assert all(name.startswith(("contrast.encoder.", "contrast.projector.")) for name in moved)


def test_the_mask_loss_moves_the_box_head_through_the_map_but_not_its_classifier() -> None:
    model = contrast_mask()
    found = gradients(model, train_losses(model, BATCHES["base"])["mask"])
    assert found["roi_heads.box_head.classes.0.0.weight"].abs().max() > 0
    assert found.get("roi_heads.box_predictor.cls_score.weight") is None
    assert found["contrast.encoder.0.0.weight"].abs().max() > 0
    without = contrast_mask(cam=False)
    found = gradients(without, train_losses(without, BATCHES["base"])["mask"])
    assert "roi_heads.box_head.classes.0.0.weight" not in found


def test_a_mask_that_is_no_truth_is_never_read() -> None:
    targets = BATCHES["mixed"]
    spoilt = targets[0].masks.clone()
    spoilt[1] = 1 - spoilt[1]
    for make in (contrast_mask, lambda: contrast_mask(code_compat=True), lambda: plain(mask_head="agnostic")):
        model = make()
        once, again = train_losses(model, targets), train_losses(model, [replace(targets[0], masks=spoilt), targets[1]])
        assert all(torch.equal(once[name], again[name]) for name in once)
    upper = contrast_mask(contrast={"novel_keys": "mask"})
    once, again = train_losses(upper, targets), train_losses(upper, [replace(targets[0], masks=spoilt), targets[1]])
    assert once["contrast"] != again["contrast"]
    assert once["mask"] == again["mask"]


@pytest.mark.parametrize(
    ("which", "targets", "silent"),
    [("base", "only novel", True), ("novel", "base", True), ("novel", "only novel", False)],
)
def test_supervision_chooses_whose_regions_are_contrasted(which: str, targets: str, silent: bool) -> None:
    loss = train_losses(contrast_mask(contrast={"supervision": which}), BATCHES[targets])["contrast"]
    assert (loss == 0) == silent


def test_the_warm_up_scales_the_contrast_alone() -> None:
    model = contrast_mask()
    whole = train_losses(model, BATCHES["base"])
    model.advance(0.0)
    quarter = train_losses(model, BATCHES["base"])
    for name, value in whole.items():
        torch.testing.assert_close(quarter[name], value / 4 if name == "contrast" else value)


def test_boxes_without_area_cost_themselves_only() -> None:
    model = contrast_mask()
    good = objects(2)
    flat = objects(3)
    flat.boxes[2] = torch.tensor([40.0, 30.0, 40.0, 50.0])
    none = replace(objects(1), boxes=torch.zeros(1, 4))
    wanted = train_losses(model, [good, objects(0)])
    found = train_losses(model, [flat, none])
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_weights_scale_what_an_object_teaches() -> None:
    model, target = plain(), objects(2)
    whole = train_losses(model, [target, objects(0)])
    half = train_losses(model, [replace(target, weights=torch.full((2,), 0.5)), objects(0)])
    for name in ("box", "mask"):
        torch.testing.assert_close(half[name], whole[name] / 2)
    assert half["class"] < whole["class"]
    assert half["rpn_box"] == whole["rpn_box"]


def test_losses_divide_by_what_the_average_says() -> None:
    """A process that holds a half of all anchors and regions divides by the mean count."""
    model = contrast_mask()
    whole = train_losses(model, BATCHES["base"])
    model.train()
    model.backbone.eval()
    torch.manual_seed(1)
    doubled = model.losses(images(), SIZES, BATCHES["base"], lambda count: 2 * alone(count))
    assert doubled.keys() == whole.keys()
    for name, value in whole.items():
        torch.testing.assert_close(doubled[name], value / 2)


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_found_in_an_image_depends_on_it_alone(variant: str) -> None:
    model = VARIANTS[variant]().eval()
    batch = images(3)
    with torch.inference_mode():
        together = model.find(batch, [(96, 128), (70, 90), (96, 128)], Limits(most=6))
        single = model.find(batch[1:2], [(70, 90)], Limits(most=6))[0]
    torch.testing.assert_close(single.maps, together[1].maps, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(single.boxes, together[1].boxes, atol=1e-3, rtol=1e-4)
    assert torch.equal(single.labels, together[1].labels)
    assert torch.equal(single.sources, together[1].sources)


def test_found_is_what_the_contract_says() -> None:
    model = contrast_mask().eval()
    with torch.inference_mode():
        first, second = model.find(images(), SIZES, Limits(most=7))
        rare = model.find(images(), SIZES, Limits(most=100, min_score=float(first.scores[3])))[0]
        nothing = model.find(images(), SIZES, Limits(min_score=1.01))[0]
    assert len(first) == 7
    assert first.maps.shape == (7, 28, 28)
    assert first.scores.diff().max() <= 0
    assert 0 <= first.maps.min() <= first.maps.max() <= 1
    assert set(first.labels.tolist()) <= {0, 1, 2}
    assert first.sources.max() < 50
    assert second.boxes is not None
    assert second.boxes.min() >= 0
    assert second.boxes[:, 0::2].max() <= 100
    assert second.boxes[:, 1::2].max() <= 80
    assert len(rare) == 4
    assert len(nothing) == 0
    assert nothing.maps.shape == (0, 28, 28)


@pytest.mark.parametrize("mask_head", ["agnostic", "per_class"])
def test_class_layers_are_those_whose_shape_depends_on_classes(mask_head: str) -> None:
    from saliency_prompt.models.backbones.registry import build_backbone
    from saliency_prompt.models.mask_rcnn.model import build

    model = plain(mask_head=mask_head)
    other = build(build_backbone("resnet18"), 9, model.options).state_dict()
    differing = {name for name, value in model.state_dict().items() if other[name].shape != value.shape}
    assert differing == {name for name in other if name.startswith(tuple(model.class_layers()))}


def test_a_backbone_without_a_fine_level_and_without_parameters() -> None:
    model = plain("lab-color")
    assert model.names == ["p3", "p4", "p5"]
    losses = train_losses(model, BATCHES["base"])
    found = gradients(model, sum(losses.values()))
    assert len(found) == len(list(model.parameters()))
    with torch.inference_mode():
        model.eval().find(images(), SIZES, Limits())


def test_a_few_steps_learn() -> None:
    model = contrast_mask()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.005, momentum=0.9)
    history = []
    for step in range(15):
        total = sum(train_losses(model, BATCHES["mixed"], seed=step).values())
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        history.append(float(total.detach()))
    assert history[-1] < 0.7 * history[0]


def test_what_the_head_sees_belongs_to_what_is_found() -> None:
    model = contrast_mask().eval()
    with torch.inference_mode():
        found = model.find(images(), SIZES, Limits(most=4))
        seen = model.explain(images(), SIZES, Limits(most=4))
    for one, wanted in zip(seen, found, strict=True):
        assert torch.equal(one.found.maps, wanted.maps)
        assert one.cams.shape == one.easy.shape == (4, 28, 28)
        assert torch.equal(one.front, one.cams >= 0.9)
        assert torch.equal(one.back, one.cams <= 0.1)
        assert one.features.shape == (4, 32, 28, 28)
        inside = wanted.maps >= 0.5
        for keys in (one.easy, one.hard):
            assert inside[keys > 0].all()
            assert not inside[keys < 0].any()
        assert not ((one.easy != 0) & (one.hard != 0)).any()


def test_finding_encodes_what_is_found_and_projects_nothing() -> None:
    model = contrast_mask().eval()
    encoded, projected = [], []
    model.contrast.encoder.register_forward_hook(lambda _, given, __: encoded.append(tuple(given[0].shape)))
    model.contrast.projector.register_forward_hook(lambda *_: projected.append(1))
    with torch.inference_mode():
        found = model.find(images(), SIZES, Limits(5))
    assert sum(map(len, found)) > 0
    assert [(shape[0], *shape[2:]) for shape in encoded] == [(sum(map(len, found)), 28, 28)]
    assert not projected
    train_losses(model, BATCHES["mixed"])
    assert projected
