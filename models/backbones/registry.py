"""Backbones by name. A builder imports its module when it is called."""

from collections.abc import Callable

from ...schemas.errors import UserError
from .base import Backbone


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
    "resnext50_32x4d": _resnet("resnext50_32x4d"),
    "resnext101_32x8d": _resnet("resnext101_32x8d"),
    "resnext101_64x4d": _resnet("resnext101_64x4d"),
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
