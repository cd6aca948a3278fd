"""ResNet feature pyramids, from torchvision's own blocks and under torchvision's parameter names.

He et al., Deep Residual Learning, Table 1. Shape legend: B images, H W pixels.
"""

import copy
from typing import Self, TypeVar

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import Bottleneck

from ...schemas.errors import UserError
from .base import LEVELS, Backbone

_BUILDERS = {
    "resnet18": models.resnet18,
    "resnet34": models.resnet34,
    "resnet50": models.resnet50,
    "resnet101": models.resnet101,
    "resnext50_32x4d": models.resnext50_32x4d,
    "resnext101_32x8d": models.resnext101_32x8d,
    "resnext101_64x4d": models.resnext101_64x4d,
}
_Module = TypeVar("_Module", bound=nn.Module)


class ResNet(Backbone):
    """ResNet-18, 34, 50 or 101, or a ResNeXt, without its classifier.

    The state dict is torchvision's less `fc.*`. Input is RGB under ImageNet's mean and deviation. With
    `stride_in_1x1` the bottleneck blocks subsample in conv1 (1x1), as caffe and detectron weights expect,
    instead of conv2 (3x3); loading such weights without it costs about ten points of top-1 accuracy.
    """

    mean = (123.675, 116.28, 103.53)
    std = (58.395, 57.12, 57.375)
    stem = ("conv1.", "bn1.", "layer1.")

    def __init__(self, arch: str = "resnet50", *, stride_in_1x1: bool = False) -> None:
        super().__init__()
        whole = _BUILDERS[arch](weights=None)
        self.conv1: nn.Module = whole.conv1
        self.bn1: nn.Module = whole.bn1
        self.relu: nn.Module = whole.relu
        self.maxpool: nn.Module = whole.maxpool
        self.layer1: nn.Module = whole.layer1
        self.layer2: nn.Module = whole.layer2
        self.layer3: nn.Module = whole.layer3
        self.layer4: nn.Module = whole.layer4
        self.strides = dict(zip(LEVELS, (4, 8, 16, 32), strict=True))
        expansion: int = whole.layer1[0].expansion
        self.channels = {level: 64 * 2**i * expansion for i, level in enumerate(LEVELS)}
        if stride_in_1x1:
            if not isinstance(whole.layer1[0], Bottleneck):
                raise UserError(f"{arch} has no 1x1 convolution to put the stride on: leave stride_in_1x1 at false")
            for layer in (whole.layer2, whole.layer3, whole.layer4):
                layer[0].conv1.stride, layer[0].conv2.stride = layer[0].conv2.stride, layer[0].conv1.stride

    def forward(self, images_B3HW: Tensor, level: str = "c5") -> dict[str, Tensor]:
        """Normalised images to `c2` .. `level`, each [B, channels, ceil(H / stride), ceil(W / stride)].

        Later layers are not run.
        """
        x = self.maxpool(self.relu(self.bn1(self.conv1(images_B3HW))))
        maps = {}
        for name, layer in zip(LEVELS, (self.layer1, self.layer2, self.layer3, self.layer4), strict=True):
            maps[name] = x = layer(x)
            if name == level:
                return maps
        raise ValueError(f"there is no level {level!r}: choose one of {', '.join(LEVELS)}")

    def folded(self) -> Self:
        """See `Backbone`: batch normalisation becomes part of the convolutions."""
        return fold_batch_norm(self)


def fold_batch_norm(model: _Module) -> _Module:
    """A copy in eval mode whose batch normalisations are part of the convolutions before them.

    Scales and shifts are computed in float64 and stored in the parameters' own dtype, so that only the
    arithmetic of the forward pass rounds differently. Every BatchNorm2d must follow its convolution in the
    order of registration, as in torchvision's ResNets; it becomes an Identity.
    """
    folded = copy.deepcopy(model).eval()
    for parent in list(folded.modules()):
        previous: tuple[str, nn.Module] | None = None
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                assert previous is not None
                _, conv = previous
                assert isinstance(conv, nn.Conv2d)
                _fold_into(conv, child)
                setattr(parent, name, nn.Identity().eval())
            previous = (name, child)
    return folded


@torch.no_grad()
def _fold_into(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Replace the weights of a convolution without bias by those that do the normalisation as well."""
    assert conv.bias is None
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    shift = norm.bias.double() - norm.running_mean.double() * scale
    conv.weight.mul_(scale.to(conv.weight.dtype).view(-1, 1, 1, 1))
    conv.bias = nn.Parameter(shift.to(conv.weight.dtype), requires_grad=conv.weight.requires_grad)
