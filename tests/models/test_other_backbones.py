"""Detectors on backbones that are no ResNet: what one finds in an image, and its losses, do not depend on the batch."""

import pytest
import torch
from torch import Tensor

from saliency_prompt.models.backbones.registry import build_backbone
from saliency_prompt.models.detector import Limits, Targets, alone
from saliency_prompt.models.registry import build_detector
from saliency_prompt.schemas.training.registry import load_training_config

pytest.importorskip("timm", reason="timm is not installed (extra vit)")
SIZES = [(64, 96), (96, 64), (64, 64)]


def objects(padded: tuple[int, int]) -> Targets:
    masks = torch.zeros(2, *padded, dtype=torch.uint8)
    masks[0, 5:40, 8:50], masks[1, 30:60, 20:60] = 1, 1
    boxes = torch.tensor([[8.0, 5.0, 50.0, 40.0], [20.0, 30.0, 60.0, 60.0]])
    return Targets(masks, torch.tensor([0, 2]), boxes, torch.ones(2))


def batch(sizes: list[tuple[int, int]], padded: tuple[int, int]) -> tuple[Tensor, list[Targets]]:
    images = torch.zeros(len(sizes), 3, *padded)
    for i, (height, width) in enumerate(sizes):
        generator = torch.Generator().manual_seed(height + width)
        images[i, :, :height, :width] = torch.randn(3, height, width, generator=generator)
    return images, [objects(padded) for _ in sizes]


@pytest.mark.parametrize("arch", ["timm:test_vit", "timm:test_convnext", "swin_t"])
@pytest.mark.parametrize("name", ["knet", "queryinst", "mask2former", "solov2", "maskrcnn"])
def test_learns_and_finds(name: str, arch: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(arch).eval()
    host = build_detector(load_training_config(name, "tiny"), backbone, 3).eval()
    images, targets = batch(SIZES, (96, 96))
    losses = host.losses(images, SIZES, targets, alone)
    total = torch.stack(list(losses.values())).sum()
    assert total.isfinite()
    total.backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in host.backbone.parameters())
    with torch.inference_mode():
        found = host.find(images, SIZES, Limits(20))
        of_one = host.find(images[:1], SIZES[:1], Limits(20))
    assert len(found) == len(SIZES)
    torch.testing.assert_close(found[0].scores, of_one[0].scores, rtol=1e-3, atol=1e-4)
