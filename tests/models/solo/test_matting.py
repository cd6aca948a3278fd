"""Mattes: the form without the full-resolution feature equals the literal one; what is frozen; one matte learned."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from saliency_prompt.models.detector import Limits, Targets, alone
from saliency_prompt.models.solo.build import build, build_matting
from saliency_prompt.models.solo.matting import Details, MattingSolo, MattingTargets, edge_band
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.training.solo import SOLO_OPTIONS, MattingConfig, SoloConfig
from tiny_backbone import TinyBackbone

SIZE = (64, 96)


def model_of(**changes: object) -> MattingSolo:
    backbone = TinyBackbone()
    torch.manual_seed(0)
    config = SoloConfig.model_validate({**SOLO_OPTIONS["solov2-tiny"], **changes})
    return build_matting(backbone, 1, config, matting=MattingConfig(details=8, band=2)).eval()


def blob(soft: bool = True) -> tuple[Tensor, MattingTargets]:
    """A disc whose edge fades, and an image that shows it."""
    y, x = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    distance = ((y - 30.0) ** 2 + (x - 40.0) ** 2).sqrt()
    alpha = ((24 - distance) / 8).clamp(0, 1)
    if not soft:
        alpha = (alpha > 0.5).float()
    masks = (alpha > 0.5).to(torch.uint8)[None]
    rows, columns = masks[0].nonzero(as_tuple=True)
    box = torch.tensor([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]).float()
    image = torch.stack([alpha * 2, torch.zeros(SIZE), 1 - alpha])
    return image, MattingTargets(
        masks, torch.zeros(1, dtype=torch.int64), box, torch.ones(1), alphas=alpha[None], soft=torch.tensor([soft])
    )


def test_low_memory_form_equals_the_literal_one() -> None:
    torch.manual_seed(0)
    details = Details(48, 32)
    torch.nn.init.normal_(details.mix.weight)
    torch.nn.init.normal_(details.mix.bias)
    feature, images = torch.randn(1, 48, 13, 18).relu(), torch.randn(1, 3, 52, 72)
    kernels = torch.randn(7, 48)
    with torch.no_grad():
        fine = details(feature, images)
        whole = F.interpolate(feature, scale_factor=4, mode="bilinear", align_corners=False) + details.mix(fine)
        literal = torch.einsum("ne,ehw->nhw", kernels, whole[0])
        found = details.mattes(kernels, feature[0], fine[0])
    assert literal.abs().max() > 10
    torch.testing.assert_close(found / literal.abs().max(), literal / literal.abs().max(), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(found, literal, atol=1e-4, rtol=1e-4)
    assert details.mattes(kernels[:0], feature[0], fine[0]).shape == (0, 52, 72)


def test_mattes_start_as_solov2s_masks_enlarged() -> None:
    torch.manual_seed(0)
    options = {"class_score": 0.0, "min_score": 0.0, "mask_threshold": 0.0}
    model = model_of(**options)
    plain = build(TinyBackbone(), 1, model_config(options))
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("details.")})
    images = torch.randn(2, 3, *SIZE)
    sizes = [SIZE, (60, 64)]
    with torch.inference_mode():
        for matte, mask in zip(
            model.find(images, sizes, Limits()), plain.eval().find(images, sizes, Limits()), strict=True
        ):
            assert matte.maps.shape[1:] == SIZE
            assert torch.equal(matte.sources, mask.sources)
            coarse = F.avg_pool2d(matte.maps[None], 4)[0]
            assert (coarse - mask.maps).abs().mean() < 0.02


def model_config(changes: dict[str, object]) -> SoloConfig:
    return SoloConfig.model_validate({**SOLO_OPTIONS["solov2-tiny"], **changes})


def test_category_branch_stays_and_all_else_has_a_gradient() -> None:
    model = model_of()
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, _ in model.named_parameters() if n.startswith(("head.class_tower.", "head.classes."))}
    image, target = blob()
    nothing = MattingTargets(
        **{name: getattr(target, name)[:0] for name in ("masks", "labels", "boxes", "weights", "alphas", "soft")}
    )
    for one in (target, nothing):
        model.zero_grad()
        losses = model.losses(image[None], [SIZE], [one], alone)
        assert set(losses) == {"dice", "mae"}
        sum(losses.values()).backward()
        missing = [
            n
            for n, p in model.named_parameters()
            if p.requires_grad and (p.grad is None or not p.grad.isfinite().all())
        ]
        assert missing == []


def test_bad_targets_and_models_are_refused() -> None:
    image, target = blob()
    plain = Targets(target.masks, target.labels, target.boxes, target.weights)
    with pytest.raises(UserError, match="mattes"):
        model_of().losses(image[None], [SIZE], [plain], alone)
    odd = replace(target, alphas=target.alphas[:, :-1])
    with pytest.raises(UserError, match="another size"):
        model_of().losses(image[None], [SIZE], [odd], alone)
    for changes in ({"head": "solo"}, {"kernel_size": 3}, {"mask_feature": "separate"}):
        with pytest.raises(UserError, match="solov2"):
            model_of(**changes)


def test_binary_alphas_are_not_compared_near_their_edge() -> None:
    _, target = blob(soft=False)
    band = edge_band(target.alphas, 2)
    shifted = torch.roll(target.alphas, 1, dims=2)
    assert (target.alphas != shifted)[band].any()
    assert not (target.alphas != shifted)[~band].any()
    assert not edge_band(target.alphas, 0).any()


@pytest.mark.slow
def test_a_matte_is_learned_by_heart() -> None:
    model = model_of()
    image, target = blob()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=120, pct_start=0.2)
    for _ in range(120):
        losses = model.losses(image[None], [SIZE], [target], alone)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        schedule.step()
    assert losses["mae"] < 0.03, losses
    torch.nn.init.constant_(model.head.classes.bias, 3.0)  # the category branch is not trained here
    with torch.inference_mode():
        found = model.find(image[None], [SIZE], Limits(most=50))[0]
    assert (found.maps - target.alphas).abs().mean((1, 2)).min() < 0.03


def test_mattes_are_learned_on_the_padding_that_they_are_found_with() -> None:
    model = model_of()
    torch.manual_seed(3)
    images = torch.randn(2, 3, 96, 96)
    sizes = [(60, 96), (96, 60)]
    _, target = blob()
    turned = replace(target, masks=target.masks.mT, alphas=target.alphas.mT, boxes=target.boxes[:, [1, 0, 3, 2]])
    padded = [
        replace(one, masks=F.pad(one.masks, (0, right, 0, bottom)), alphas=F.pad(one.alphas, (0, right, 0, bottom)))
        for one, (right, bottom) in ((target, (0, 32)), (turned, (32, 0)))
    ]
    together = model.losses(images, sizes, padded, alone)
    counts: list[float] = []

    def note(count: Tensor) -> Tensor:
        counts.append(count.item())
        return count

    apart = [
        model.losses(image[None, :, :height, :width], [(height, width)], [one], note)
        for image, one, (height, width) in zip(images, (target, turned), ((64, 96), (96, 64)), strict=True)
    ]
    for name, value in together.items():
        wanted = sum(one[name] * count for one, count in zip(apart, counts, strict=True)) / sum(counts)
        torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-5)
