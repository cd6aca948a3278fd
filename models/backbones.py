"""Backbones by name, and what all of them have in common.

Shape legend: B images, H W pixels; a feature map has one of the strides 4, 8, 16, 32, and ceil(H / stride) rows.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ..schemas.errors import UserError

LEVELS = ("c2", "c3", "c4", "c5")


class Backbone(nn.Module):
    """A feature extractor on a pyramid of grids.

    `channels` and `strides` describe each level it can return. The caller normalises: `forward` takes
    (rgb - mean) / std, with `mean` and `std` on the 0..255 scale of decoded pixels.
    """

    channels: dict[str, int]
    strides: dict[str, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    if TYPE_CHECKING:  # nn.Module types its calls as Any

        def __call__(self, images_B3HW: Tensor, level: str = "c5") -> dict[str, Tensor]: ...  # noqa: D102

    def forward(self, images_B3HW: Tensor, level: str = "c5") -> dict[str, Tensor]:
        """Normalised images [B, 3, H, W] to feature maps, from the finest level up to `level`."""
        raise NotImplementedError


# A builder imports its module when it is called, since that module takes `Backbone` from this one.


def _resnet(arch: str) -> Callable[[bool], Backbone]:
    def build(stride_in_1x1: bool) -> Backbone:
        from .resnet import ResNet

        return ResNet(arch, stride_in_1x1=stride_in_1x1)

    return build


def _lab_color(stride_in_1x1: bool) -> Backbone:
    from .lab_color import LabColor

    if stride_in_1x1:
        raise UserError("lab-color has no convolution: leave features.stride_in_1x1 at false")
    return LabColor()


BACKBONES: dict[str, Callable[[bool], Backbone]] = {
    "resnet18": _resnet("resnet18"),
    "resnet34": _resnet("resnet34"),
    "resnet50": _resnet("resnet50"),
    "resnet101": _resnet("resnet101"),
    "lab-color": _lab_color,
}


def build_backbone(arch: str, *, stride_in_1x1: bool = False) -> Backbone:
    """A backbone with fresh parameters, drawn from torch's global generator.

    `stride_in_1x1` puts the stride of bottleneck blocks on their 1x1 convolution (caffe-style weights).
    Raises UserError for an unknown name, or for the option where there is nothing it could move.
    """
    if arch not in BACKBONES:
        raise UserError(f"there is no backbone {arch!r}: choose one of {', '.join(BACKBONES)}")
    return BACKBONES[arch](stride_in_1x1)
