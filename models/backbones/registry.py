"""Backbones by name. A builder imports its module when it is called."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ...schemas.errors import UserError
from .base import Backbone, Take

TIMM = "timm:"
TRANSFORMERS = "transformers:"
ANY = (TIMM, TRANSFORMERS)  # prefixes of names that other packages know


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """What can be known of a backbone without building it.

    `build` takes `stride_in_1x1`; `strides` are those of the module; `learned` says whether weights fill it.
    """

    build: Callable[[bool], Backbone]
    about: str
    strides: dict[str, int]
    learned: bool = True


def _resnet(arch: str) -> BackboneSpec:
    def build(stride_in_1x1: bool) -> Backbone:
        from .resnet import ResNet

        return ResNet(arch, stride_in_1x1=stride_in_1x1)

    return BackboneSpec(
        build, arch.replace("resnet", "ResNet-").replace("resnext", "ResNeXt-"), {"c2": 4, "c3": 8, "c4": 16, "c5": 32}
    )


def _swin(arch: str) -> BackboneSpec:
    def build(stride_in_1x1: bool) -> Backbone:
        from .swin import Swin

        if stride_in_1x1:
            raise UserError(f"{arch} is no ResNet: leave stride_in_1x1 at false")
        return Swin(arch)

    about = arch.replace("_v2", " V2").replace("_", "-").replace("swin", "Swin")
    return BackboneSpec(build, about, {"c2": 4, "c3": 8, "c4": 16, "c5": 32})


def _lab_color(stride_in_1x1: bool) -> Backbone:
    from .lab_color import LabColor

    if stride_in_1x1:
        raise UserError("lab-color has no convolution: leave stride_in_1x1 at false")
    return LabColor()


BACKBONES: dict[str, BackboneSpec] = {
    "resnet18": _resnet("resnet18"),
    "resnet34": _resnet("resnet34"),
    "resnet50": _resnet("resnet50"),
    "resnet101": _resnet("resnet101"),
    "resnext50_32x4d": _resnet("resnext50_32x4d"),
    "resnext101_32x8d": _resnet("resnext101_32x8d"),
    "resnext101_64x4d": _resnet("resnext101_64x4d"),
    **{name: _swin(name) for name in ("swin_t", "swin_s", "swin_b", "swin_v2_t", "swin_v2_s", "swin_v2_b")},
    "lab-color": BackboneSpec(
        _lab_color, "Lab colour and gradients of each cell", {"c3": 8, "c4": 16, "c5": 32}, learned=False
    ),
}


def build_backbone(
    arch: str, *, stride_in_1x1: bool = False, layer: int = -1, take: Take = "tokens", pretrained: bool = False
) -> Backbone:
    """A backbone with fresh parameters, drawn from torch's global generator.

    `stride_in_1x1` puts the stride of bottleneck blocks on their 1x1 convolution (caffe-style weights). `layer`,
    `take` and `pretrained` are for `timm:NAME` (see `vit.TimmFeatures`), all but `take` for `transformers:NAME` (see
    `automatic.TransformersFeatures`). Raises UserError for an unknown name, or for an option where there is nothing it
    could change.
    """
    if arch.startswith(TRANSFORMERS):
        from .automatic import TransformersFeatures

        if stride_in_1x1 or take != "tokens":
            raise UserError(f"{arch} gives its maps as they are: leave stride_in_1x1 and take alone")
        return TransformersFeatures(arch.removeprefix(TRANSFORMERS), layer=layer, pretrained=pretrained)
    if arch.startswith(TIMM):
        from .vit import TimmFeatures

        if stride_in_1x1:
            raise UserError(f"{arch} is no ResNet of ours: leave stride_in_1x1 at false")
        return TimmFeatures(arch.removeprefix(TIMM), layer=layer, take=take, pretrained=pretrained)
    if arch not in BACKBONES:
        raise UserError(
            f"there is no backbone {arch!r}: choose one of {', '.join(BACKBONES)}, {TIMM}NAME or {TRANSFORMERS}NAME"
        )
    if (layer, take) != (-1, "tokens"):
        raise UserError(f"{arch} has no tokens: leave features.layer at -1 and features.take at tokens")
    return BACKBONES[arch].build(stride_in_1x1)


def strides_of(arch: str) -> dict[str, int]:
    """Strides of a backbone's levels, in pixels; models of other packages are built, without memory for parameters."""
    if not arch.startswith(ANY):
        if arch not in BACKBONES:
            raise UserError(
                f"there is no backbone {arch!r}: choose one of {', '.join(BACKBONES)}, {TIMM}NAME or {TRANSFORMERS}NAME"
            )
        return BACKBONES[arch].strides
    with torch.device("meta"):
        return build_backbone(arch).strides
