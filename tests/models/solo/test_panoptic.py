"""Stuff beside things: losses, merging, and a toy set learned to a quality above 0.9."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from saliency_prompt.models.detector import Limits, Targets, alone
from saliency_prompt.models.solo.build import build_panoptic
from saliency_prompt.models.solo.layers import resize
from saliency_prompt.models.solo.panoptic import (
    MergeRules,
    PanopticSolo,
    PanopticTargets,
    merge,
    semantic_at,
)
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.training.solo import SOLO_OPTIONS, PanopticConfig, SoloConfig
from saliency_prompt.stages.panoptic import Category, Quality, SegmentInfo
from tiny_backbone import TinyBackbone

SIZE = (64, 96)


def model_of() -> PanopticSolo:
    backbone = TinyBackbone()
    torch.manual_seed(0)
    config = SoloConfig.model_validate(SOLO_OPTIONS["solov2-tiny"])
    return build_panoptic(backbone, 2, config, num_stuff=2, panoptic=PanopticConfig()).eval()


def scene(boxes: list[tuple[int, int, int, int]], horizon: int) -> tuple[Tensor, PanopticTargets]:
    """Rectangles between two kinds of stuff, and an image that shows it in colours."""
    semantic = torch.ones(SIZE, dtype=torch.uint8)
    semantic[horizon:] = 2
    masks = torch.zeros(len(boxes), *SIZE, dtype=torch.uint8)
    labels = torch.arange(len(boxes)) % 2
    image = torch.zeros(3, *SIZE)
    image[2, horizon:] = 2
    for mask, label, (left, top, right, bottom) in zip(masks, labels, boxes, strict=True):
        mask[top:bottom, left:right] = 1
        semantic[mask.bool()] = 0
        image[:, mask.bool()] = torch.eye(3)[label][:, None] * 2
    return image, PanopticTargets(
        masks, labels, torch.tensor(boxes).reshape(-1, 4).float(), torch.ones(len(boxes)), semantic=semantic
    )


def test_every_parameter_has_a_gradient_without_things_or_known_pixels() -> None:
    model = model_of()
    image, target = scene([], 30)
    unknown = replace(target, semantic=torch.full(SIZE, 255, dtype=torch.uint8))
    for one in (target, unknown):
        model.zero_grad()
        losses = model.losses(image[None], [SIZE], [one], alone)
        assert set(losses) == {"class", "mask", "semantic"}
        sum(losses.values()).backward()
        assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    with pytest.raises(UserError, match="panoptic annotations"):
        model.losses(image[None], [SIZE], [Targets(target.masks, target.labels, target.boxes, target.weights)], alone)


def test_merge_paints_best_first_and_fills_with_stuff() -> None:
    masks = torch.zeros(4, 6, 8, dtype=torch.bool)
    masks[0, :, :4] = True
    masks[1, :, 2:6] = True  # half taken: painted
    masks[2, :, 1:6] = True  # all taken: not painted
    masks[3, :, 7:] = True  # too poor
    semantic = torch.ones(6, 8, dtype=torch.int64)
    semantic[0, 6:] = 2
    semantic[5, 6:] = 0
    scores, labels = torch.tensor([0.9, 0.8, 0.7, 0.3]), torch.tensor([1, 0, 1, 0])
    picture, segments = merge(masks, scores, labels, semantic, MergeRules(min_stuff=3))
    assert [(s.number, s.is_thing, s.label, s.area) for s in segments] == [
        (1, True, 1, 24),
        (2, True, 0, 12),
        (3, False, 0, 8),
    ]
    wanted = torch.zeros(6, 8, dtype=torch.int64)
    wanted[:, :4], wanted[:, 4:6], wanted[1:5, 6:] = 1, 2, 3
    assert torch.equal(picture, wanted)


def test_merge_of_nothing() -> None:
    nothing = torch.zeros(0, 4, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    picture, segments = merge(*nothing, torch.zeros(4, 4, dtype=torch.int64), MergeRules())
    assert segments == []
    assert picture.sum() == 0


@pytest.mark.slow
def test_a_toy_set_is_learned_to_a_quality_above_90() -> None:
    model = model_of()
    scenes = [scene([(4, 6, 36, 34), (50, 20, 90, 60)], 40), scene([(30, 10, 80, 50)], 20), scene([], 32)]
    images, targets = torch.stack([image for image, _ in scenes]), [target for _, target in scenes]
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=120, pct_start=0.2)
    for _ in range(120):
        losses = model.losses(images, [SIZE] * 3, targets, alone)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        schedule.step()
    categories = [Category(0, "a", True), Category(1, "b", True), Category(2, "sky", False), Category(3, "sea", False)]
    quality = Quality(categories)
    with torch.inference_mode():
        for (found, semantic), target in zip(model.find_all(images, [SIZE] * 3, Limits()), targets, strict=True):
            masks = resize(found.maps[None], SIZE)[0] > 0.5
            picture, segments = merge(
                masks, found.scores, found.labels, semantic_at(semantic, SIZE, SIZE), MergeRules(min_stuff=64)
            )
            infos = [SegmentInfo(s.number, s.label if s.is_thing else s.label + 2) for s in segments]
            truth = np.zeros(SIZE, np.int64)
            listed = []
            for stuff in (1, 2):
                truth[target.semantic == stuff] = stuff
                listed.append(SegmentInfo(stuff, stuff + 1))
            for number, (mask, label) in enumerate(zip(target.masks, target.labels, strict=True), start=3):
                truth[mask.bool()] = number
                listed.append(SegmentInfo(number, int(label)))
            quality.add(picture.numpy(), infos, truth, listed)
    summary = quality.summary()
    assert summary["PQ"] > 90, summary


def test_stuff_is_learned_on_the_padding_that_it_is_found_with() -> None:
    model = model_of()
    first, target = scene([(10, 10, 40, 40)], 30)
    images = torch.zeros(2, 3, 96, 96)
    images[0, :, :64], images[1, :, :, :64] = first, first.mT
    turned = replace(target, masks=target.masks.mT, semantic=target.semantic.mT, boxes=target.boxes[:, [1, 0, 3, 2]])
    padded = [
        replace(
            one,
            masks=torch.nn.functional.pad(one.masks, margins),
            semantic=torch.nn.functional.pad(one.semantic, margins, value=255),
        )
        for one, margins in ((target, (0, 0, 0, 32)), (turned, (0, 32)))
    ]
    together = model.losses(images, [(60, 96), (96, 60)], padded, alone)["semantic"]
    apart = [
        model.losses(image[None], [(image.shape[1], image.shape[2])], [one], alone)["semantic"]
        for image, one in ((first, target), (first.mT, turned))
    ]
    torch.testing.assert_close(together, (apart[0] + apart[1]) / 2, rtol=1e-4, atol=1e-5)  # of as many pixels
