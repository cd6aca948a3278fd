"""A ResNet-18 of a quarter of the width, whose weights the oracles' folders hold."""

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from saliency_prompt.models.backbones.base import LEVELS, Backbone
from saliency_prompt.models.backbones.registry import BackboneSpec

NAME = "resnet18-w16"


class NarrowResNet(Backbone):
    """Torchvision's names; pixels come as they are."""

    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def __init__(self) -> None:
        super().__init__()
        widths = [16, 32, 64, 128]
        self.channels = dict(zip(LEVELS, widths, strict=True))
        self.strides = dict(zip(LEVELS, (4, 8, 16, 32), strict=True))
        self.conv1 = nn.Conv2d(3, 16, 7, 2, 3, bias=False)
        self.bn1, self.pool = nn.BatchNorm2d(16), nn.MaxPool2d(3, 2, 1)
        inside = 16
        for number, width in enumerate(widths, start=1):
            stride = 1 if number == 1 else 2
            shortcut = None
            if stride == 2:
                shortcut = nn.Sequential(nn.Conv2d(inside, width, 1, stride, bias=False), nn.BatchNorm2d(width))
            blocks = nn.Sequential(BasicBlock(inside, width, stride, shortcut), BasicBlock(width, width))
            self.add_module(f"layer{number}", blocks)
            inside = width

    def forward(self, images_B3HW: Tensor, level: str = "c5") -> dict[str, Tensor]:  # noqa: ARG002
        x = self.pool(torch.relu(self.bn1(self.conv1(images_B3HW))))
        maps = {}
        for number, name in enumerate(LEVELS, start=1):
            maps[name] = x = self.get_submodule(f"layer{number}")(x)
        return maps


SPEC = BackboneSpec(lambda _: NarrowResNet(), "for tests", dict(zip(LEVELS, (4, 8, 16, 32), strict=True)))
