"""Every member of the family: it learns, gives every parameter a gradient, and stands bad input."""

from collections.abc import Sequence
from functools import partial

import pytest
import torch
from torch import Tensor

from saliency_prompt.models.backbones.registry import build_backbone
from saliency_prompt.models.detector import Limits, Targets, alone
from saliency_prompt.models.solo.build import build, options_of
from saliency_prompt.models.solo.criterion import CHUNK
from saliency_prompt.models.solo.layers import Deformable, deform_backbone
from saliency_prompt.models.solo.model import Solo
from saliency_prompt.models.solo.options import Options
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.training.solo import SOLO_OPTIONS, SoloConfig
from tiny_backbone import TinyBackbone

TINY = [name for name in SOLO_OPTIONS if name.endswith("-tiny")]
SINGLE = {"single_level": True, "grids": (12,)}
VARIANTS: dict[str, dict[str, object]] = {
    **{name: SOLO_OPTIONS[name] for name in TINY},
    "single": {**SOLO_OPTIONS["solo-tiny"], **SINGLE},
    "single-separate": {**SOLO_OPTIONS["solov2-tiny"], **SINGLE, "mask_feature": "separate"},
    "bce": {**SOLO_OPTIONS["solo-tiny"], "mask_loss": "bce"},
    "focal-decoupled": {**SOLO_OPTIONS["decoupled-solo-tiny"], "mask_loss": "focal"},
    "adaptive-max": {**SOLO_OPTIONS["solo-tiny"], "align": "adaptive_max", "coord_layers": 0},
    "region": {**SOLO_OPTIONS["solo-tiny"], "align": "region", "coord_layers": 3},
    "kernels-3x3": {**SOLO_OPTIONS["solov2-tiny"], "kernel_size": 3, "coords": "feature"},
    "separate": {**SOLO_OPTIONS["solov2-tiny"], "mask_feature": "separate", "coord_order": "code"},
    "deformable": {**SOLO_OPTIONS["solov2-light-tiny"], "deform": "last", "deform_backbone": True, "coords": "none"},
    "deformable-all": {**SOLO_OPTIONS["decoupled-solo-light-tiny"], "deform": "all", "collision": "all"},
    "contours": {**SOLO_OPTIONS["solov2-tiny"], "contours": True, "coords": "kernel"},
}


def model_of(name: str, **changes: object) -> Solo:
    config = SoloConfig.model_validate({**VARIANTS[name], **changes})
    backbone = build_backbone("resnet18") if config.deform_backbone else TinyBackbone()
    torch.manual_seed(0)
    return build(backbone, 3, config).eval()


def rectangles(size: tuple[int, int], *boxes: tuple[int, int, int, int]) -> Targets:
    """Objects that fill their boxes XYXY; labels count up."""
    masks = torch.zeros(len(boxes), *size, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = 1
    return Targets(
        masks, torch.arange(len(boxes)) % 3, torch.tensor(boxes).reshape(-1, 4).float(), torch.ones(len(boxes))
    )


def losses_of(model: Solo, images: Tensor, targets: Sequence[Targets]) -> dict[str, Tensor]:
    return model.losses(images, [(images.shape[2], images.shape[3])] * len(images), targets, alone)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_parameter_has_a_gradient_without_objects_and_with_bad_ones(name: str) -> None:
    model = model_of(name)
    images = torch.randn(2, 3, 64, 96)
    bad = rectangles((64, 96), (0, 0, 96, 64), (3, 3, 3, 3), (10, 10, 11, 11))  # all, nothing, one pixel
    for targets in ([rectangles((64, 96))] * 2, [bad, rectangles((64, 96))]):
        model.zero_grad()
        losses = losses_of(model, images, targets)
        assert all(value.isfinite() for value in losses.values())
        sum(losses.values()).backward()
        missing = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        assert missing == []


@pytest.mark.parametrize("objects", [1, 0])
def test_two_processes_have_the_losses_of_one(objects: int) -> None:
    model = model_of("solov2-tiny")
    images = torch.randn(2, 3, 64, 96)
    boxes = ((5, 5, 30, 30), (40, 10, 80, 50), (60, 40, 90, 60))
    targets = [rectangles((64, 96), *boxes[: 2 * objects]), rectangles((64, 96), *boxes[: 3 * objects])]
    means: list[Tensor] = []
    counts: list[list[Tensor]] = [[], []]

    def average(process: int, count: Tensor) -> Tensor:
        """The mean over both, of the counts that are known from the time before."""
        place = len(counts[process])
        counts[process].append(count.detach())
        return means[place] if place < len(means) else count.clamp_min(1)

    while True:
        for known in counts:
            known.clear()
        shares = [
            model.losses(images[n : n + 1], [(64, 96)], targets[n : n + 1], partial(average, n)) for n in range(2)
        ]
        if len(means) == len(counts[0]):
            break
        means.append((counts[0][len(means)] + counts[1][len(means)]).clamp_min(1) / 2)
    for name, value in losses_of(model, images, targets).items():
        assert (shares[0][name] + shares[1][name]).item() / 2 == pytest.approx(value.item(), rel=1e-5, abs=1e-7), name


@pytest.mark.parametrize("name", [*TINY, "kernels-3x3", "separate", "deformable"])
def test_bf16_gives_nearly_the_losses_of_fp32(name: str) -> None:
    model = model_of(name, class_score=0.0, min_score=0.0, mask_threshold=0.0)
    torch.manual_seed(1)
    images = torch.randn(1, 3, 64, 96)
    target = rectangles((64, 96), (4, 6, 36, 34), (50, 20, 90, 60))
    exact = losses_of(model, images, [target])
    with torch.inference_mode():
        wanted = model.find(images, [(64, 96)], Limits(most=5))[0]
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        for key, value in losses_of(model, images, [target]).items():
            torch.testing.assert_close(value, exact[key].detach(), rtol=0.05, atol=0.01)
        found = model.find(images, [(64, 96)], Limits(most=5))[0]
    assert found.maps.dtype == found.scores.dtype == torch.float32
    torch.testing.assert_close(found.scores, wanted.scores, rtol=0.05, atol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_one_batch_is_learned_by_heart(name: str) -> None:
    model = model_of(name, contours=False, deform_backbone=False)
    size = (64, 96)
    targets = [rectangles(size, (4, 6, 36, 34), (50, 20, 90, 60)), rectangles(size, (30, 10, 80, 50))]
    images = torch.zeros(2, 3, *size)
    for image, target in zip(images, targets, strict=True):
        for mask, label in zip(target.masks, target.labels, strict=True):
            image[:, mask.bool()] = torch.eye(3)[label][:, None] * 2
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0)
    rate, steps = (5e-3, 250) if name.startswith("deform") else (1e-2, 150)  # offsets ask for care
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.2)
    start: dict[str, float] = {}
    for _ in range(steps):
        losses = losses_of(model, images, targets)
        start = start or {key: value.item() for key, value in losses.items()}
        optimizer.zero_grad()
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10)
        optimizer.step()
        schedule.step()
    assert losses["class"] < 0.1 * start["class"], (start, losses)
    assert losses["mask"] < 0.2 * start["mask"], (start, losses)
    with torch.inference_mode():
        for found, target in zip(model.find(images, [size] * 2, Limits()), targets, strict=True):
            best = found.maps > 0.5
            for mask, label in zip(target.masks, target.labels, strict=True):
                wanted = torch.nn.functional.interpolate(mask[None, None].float(), scale_factor=0.25)[0, 0] > 0.5
                overlap = (best & wanted).sum((1, 2)) / (best | wanted).sum((1, 2)).clamp_min(1)
                assert found.scores[(found.labels == label) & (overlap > 0.6)].sum() > 0.5


@pytest.mark.parametrize("name", ["solo-tiny", "decoupled-solo-tiny", "solov2-tiny", "single"])
def test_what_is_found_in_an_image_does_not_depend_on_the_others(name: str) -> None:
    model = model_of(name, class_score=0.0, min_score=0.0, mask_threshold=0.0)
    sizes = [(60, 90), (33, 64), (96, 128)]
    images = torch.zeros(3, 3, 96, 128)
    for image, (height, width) in zip(images, sizes, strict=True):
        image[:, :height, :width] = torch.randn(3, height, width)
    with torch.inference_mode():
        together = model.find(images, sizes, Limits(most=20))
        for image, size, found in zip(images, sizes, together, strict=True):
            single = model.find(image[None, :, :96, :128], [size], Limits(most=20))[0]
            assert found.maps.shape == (20, 24, 32)
            assert found.scores.diff().le(0).all()
            torch.testing.assert_close(single.scores, found.scores, atol=1e-4, rtol=1e-3)
            same = single.sources == found.sources  # nearly equal scores may change places
            assert same.float().mean() > 0.8
            torch.testing.assert_close(single.maps[same], found.maps[same], atol=1e-4, rtol=1e-3)


def test_limits_and_empty_answers() -> None:
    model = model_of("solov2-tiny", class_score=0.0, min_score=0.0, mask_threshold=0.0)
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        everything = model.find(images, [(64, 64)], Limits(most=10_000))[0]
        few = model.find(images, [(64, 64)], Limits(most=3))[0]
        least = everything.scores.median().item()
        good = model.find(images, [(64, 64)], Limits(most=10_000, min_score=least))[0]
        none = model.find(images, [(64, 64)], Limits(min_score=1.0))[0]
    assert len(everything) <= model.options.candidates
    assert len(few) == 3
    assert good.scores.min() >= least
    assert len(good) < len(everything)
    assert none.maps.shape == (0, 16, 16)
    assert none.sources.dtype == none.labels.dtype == torch.int64


def test_grids_finer_than_the_map_and_3000_objects() -> None:
    model = model_of("solov2-tiny", grids=(100, 48, 24, 16, 12))
    generator = torch.Generator().manual_seed(0)
    corners = torch.stack([torch.randint(0, 60, (3000,), generator=generator) for _ in range(2)], 1)
    crowd = rectangles((64, 64), *(torch.cat([corners, corners + 4], 1).tolist()))
    losses = losses_of(model, torch.randn(1, 3, 64, 64), [crowd])
    assert all(value.isfinite() for value in losses.values())
    sum(losses.values()).backward()


def test_many_masks_in_chunks_have_the_gradients_of_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CHUNK > 8
    gradients = []
    for chunk in (CHUNK, 3):
        monkeypatch.setattr("saliency_prompt.models.solo.criterion.CHUNK", chunk)
        model = model_of("decoupled-solo-tiny")
        torch.manual_seed(1)
        images = torch.randn(1, 3, 64, 96)
        losses = losses_of(model, images, [rectangles((64, 96), (4, 6, 36, 34), (50, 20, 90, 60))])
        sum(losses.values()).backward()
        gradients.append([p.grad for p in model.parameters()])
    for whole, chunked in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, chunked, atol=1e-5, rtol=1e-4)


def test_weights_of_objects_weigh_their_masks() -> None:
    model = model_of("solov2-tiny")
    images = torch.randn(1, 3, 64, 96)
    target = rectangles((64, 96), (50, 20, 90, 60))
    whole = losses_of(model, images, [target])
    half = Targets(target.masks, target.labels, target.boxes, target.weights / 2)
    torch.testing.assert_close(losses_of(model, images, [half])["mask"], whole["mask"] / 2)


def test_deformable_convolutions_start_as_plain_ones() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("resnet18").eval()
    images = torch.randn(1, 3, 64, 64)
    before, names = backbone(images), set(backbone.state_dict())
    deform_backbone(backbone)
    after = backbone(images)
    for level in before:
        torch.testing.assert_close(after[level], before[level], atol=1e-4, rtol=1e-4)
    assert sum(isinstance(module, Deformable) for module in backbone.modules()) == 6
    assert names < set(backbone.state_dict())
    assert all(".offset." in name for name in set(backbone.state_dict()) - names)


def test_class_layers_are_those_whose_shape_depends_on_classes() -> None:
    for name in TINY:
        model = model_of(name)
        other = build(TinyBackbone(), 7, SoloConfig.model_validate(VARIANTS[name])).state_dict()
        differing = {key for key, value in model.state_dict().items() if other[key].shape != value.shape}
        assert differing == {key for key in other if key.startswith(tuple(model.class_layers()))}


def test_presets_and_defaults_agree_with_the_models_options() -> None:
    assert options_of(SoloConfig()) == Options()
    heads = {name: options_of(SoloConfig.model_validate(preset)).head for name, preset in SOLO_OPTIONS.items()}
    assert heads["solo"] == "solo"
    assert heads["decoupled-solo"] == heads["decoupled-solo-light"] == "decoupled"
    assert heads["solov2"] == heads["solov2-light"] == heads["solov2-light-512"] == "dynamic"
    assert all(heads[name] == heads[name.removesuffix("-tiny")] for name in TINY)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"single_level": True}, "grids"),
        ({"grids": (4, 4)}, "five"),
        ({"ranges": ((1, 8), (9, 20), (10, 30), (10, 40), (10, 50))}, "gap"),
        ({"ranges": ((8, 1), (9, 20), (10, 30), (10, 40), (10, 50))}, "low"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(changes: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        SoloConfig.model_validate(changes)


def test_backbones_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="resnet50"):
        build(build_backbone("lab-color"), 1, SoloConfig())
    with pytest.raises(UserError, match="separate"):
        Solo(build_backbone("resnet18"), 1, Options(single_level=True, grids=(12,)))


@pytest.mark.parametrize("name", ["solo-tiny", "decoupled-solo-tiny", "solov2-tiny"])
def test_an_image_is_learned_as_it_is_looked_at(name: str) -> None:
    model = model_of(name)
    torch.manual_seed(2)
    images = torch.randn(2, 3, 96, 96)  # a wide and an upright one, padded to a square
    sizes = [(60, 96), (96, 50)]
    targets = [rectangles((96, 96), (4, 6, 36, 34), (50, 20, 90, 60)), rectangles((96, 96), (10, 10, 40, 90))]
    together = model.losses(images, sizes, targets, alone)
    counts: list[float] = []

    def note(count: Tensor) -> Tensor:
        counts.append(count.item())
        return alone(count)

    alone_class = alone_mask = 0.0
    for image, (height, width), target in zip(images, [(64, 96), (96, 64)], targets, strict=True):
        own = Targets(target.masks[:, :height, :width], target.labels, target.boxes, target.weights)
        losses = model.losses(image[None, :, :height, :width], [(height, width)], [own], note)
        alone_mask += losses["mask"].item() * counts[-1]
        alone_class += losses["class"].item() * counts[-2]
    total = counts[2] + counts[5]
    torch.testing.assert_close(together["mask"].detach(), torch.tensor(alone_mask / total), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        together["class"].detach(), torch.tensor(alone_class / (total + 1)), rtol=1e-4, atol=1e-5
    )
