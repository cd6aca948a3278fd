"""A pyramid of one map: sizes, what each level is, and which backbones a detector can stand on."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_prompt.models.backbones.base import Backbone
from saliency_prompt.models.backbones.registry import build_backbone
from saliency_prompt.models.backbones.simple_pyramid import SimplePyramid, as_pyramid
from saliency_prompt.schemas.errors import UserError


class Patches(Backbone):
    """Linear patches of so many pixels, as a ViT begins with."""

    mean = (1.0, 2.0, 3.0)
    std = (4.0, 5.0, 6.0)
    stem = ("embed.weight",)

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 5, patch, stride=patch)
        self.strides, self.channels = {"c5": patch}, {"c5": 5}

    def forward(self, images_B3HW: Tensor, level: str = "c5") -> dict[str, Tensor]:
        assert not any(side % self.strides["c5"] for side in images_B3HW.shape[2:])
        return {level: self.embed(images_B3HW)}


@pytest.mark.parametrize("patch", [8, 14, 16])
@pytest.mark.parametrize("size", [(64, 96), (70, 41), (33, 1)])
@torch.inference_mode()
def test_levels_have_the_sizes_of_a_resnet(patch: int, size: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *size)
    found, resnet = SimplePyramid(Patches(patch))(image), build_backbone("resnet18").eval()(image)
    assert {name: one.shape[2:] for name, one in found.items()} == {n: one.shape[2:] for n, one in resnet.items()}
    assert all(one.shape[:2] == (2, 5) for one in found.values())
    assert list(SimplePyramid(Patches(patch))(image, "c3")) == ["c2", "c3"]


@torch.inference_mode()
def test_levels_are_the_map_finer_and_coarser() -> None:
    single = Patches(16)
    image = torch.rand(1, 3, 64, 96)
    found, own = SimplePyramid(single)(image), single(image)["c5"]
    torch.testing.assert_close(found["c4"], own)  # no pixel is moved where a patch has 16
    torch.testing.assert_close(found["c5"], own.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5)))
    ramp = torch.arange(6.0).repeat_interleave(16).expand(1, 3, 64, 96)
    finer = SimplePyramid(single)(ramp)
    for name, factor in (("c3", 2), ("c2", 4)):
        torch.testing.assert_close(F.avg_pool2d(finer[name], factor)[..., 1:-1], finer["c4"][..., 1:-1])
        rises = finer[name].diff(dim=3)[..., factor:-factor]
        torch.testing.assert_close(rises, (finer["c4"].diff(dim=3)[:, :, :1, :1] / factor).expand_as(rises))


@torch.inference_mode()
def test_a_patch_covers_16_pixels_whatever_its_size() -> None:
    image = torch.full((1, 3, 64, 96), 0.7)
    image[..., 48:] = 0.2
    for patch in (8, 14):
        single = Patches(patch)
        for one in SimplePyramid(single)(image).values():
            left, right = (single(torch.full((1, 3, patch, patch), value))["c5"].expand_as(one) for value in (0.7, 0.2))
            edge = one.shape[3] // 2
            far = max(1, edge // 2)
            torch.testing.assert_close(one[..., : edge - far], left[..., : edge - far])
            torch.testing.assert_close(one[..., edge + far :], right[..., edge + far :])


def test_states_what_its_backbone_states() -> None:
    found = SimplePyramid(Patches(14))
    assert (found.mean, found.std) == (Patches.mean, Patches.std)
    assert found.stem == ("single.embed.weight",)
    assert any(name.startswith(found.stem) for name, _ in found.named_parameters())
    with pytest.raises(ValueError, match="c6"):
        found(torch.rand(1, 3, 32, 32), "c6")


def test_which_backbones_have_one() -> None:
    for arch in ("resnet18", "swin_t"):
        whole = build_backbone(arch)
        assert as_pyramid(whole) is whole
        assert any(name.startswith(whole.stem) for name, _ in whole.named_parameters())
    assert isinstance(as_pyramid(Patches(14)), SimplePyramid)
    with pytest.raises(UserError, match="ResNet"):
        as_pyramid(build_backbone("lab-color"))
