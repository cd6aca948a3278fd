"""What the heads of the family are built from.

Shape legend: B images, C channels, H W cells.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import deform_conv2d

from ...schemas.errors import UserError
from ..backbones.base import Backbone

STD = 0.01  # of the weights of every convolution
PRIOR_BIAS = -math.log((1 - 0.01) / 0.01)  # outputs start at a probability of 0.01


def coordinates(map_BCHW: Tensor, axes: str) -> Tensor:
    """CoordConv's channels, x and y from -1 to 1 over the map: [B, len(axes), H, W] for `axes` x, y or xy."""
    batch, _, height, width = map_BCHW.shape
    x_W, y_H = (torch.linspace(-1, 1, n, device=map_BCHW.device, dtype=map_BCHW.dtype) for n in (width, height))
    places = {"x": x_W.expand(height, width), "y": y_H[:, None].expand(height, width)}
    return torch.stack([places[axis] for axis in axes]).expand(batch, -1, -1, -1)


def with_coordinates(map_BCHW: Tensor, axes: str) -> Tensor:
    """The map and the channels of `coordinates` after its own."""
    return torch.cat([map_BCHW, coordinates(map_BCHW, axes)], dim=1) if axes else map_BCHW


def resize(map_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, half-pixel centres, no antialias; the map itself if it has that size."""
    if map_BCHW.shape[2:] == size:
        return map_BCHW
    if not map_BCHW.numel():
        return map_BCHW.new_zeros((*map_BCHW.shape[:2], *size))
    return F.interpolate(map_BCHW, size, mode="bilinear", align_corners=False)


class Deformable(nn.Module):
    """A modulated deformable convolution (Zhu et al., Deformable ConvNets v2, Eq. 1) that starts as a plain one.

    Offsets and modulation come from one convolution that starts at zero. The modulation is 2 sigmoid, 1 at the start,
    so that weights of a plain convolution keep their meaning; files made with a modulation of sigmoid load with
    halved weights.
    """

    def __init__(self, plain: nn.Conv2d) -> None:
        super().__init__()
        assert plain.groups == 1
        self.weight, self.bias = plain.weight, plain.bias
        kernel, self.stride, self.dilation = plain.kernel_size[0], plain.stride[0], plain.dilation[0]
        self.padding = self.dilation * (kernel // 2)
        self.points = kernel * kernel
        self.offset = nn.Conv2d(plain.in_channels, 3 * self.points, kernel, self.stride, self.padding, self.dilation)
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)  # type: ignore[arg-type]

    def forward(self, map_BCHW: Tensor) -> Tensor:
        """The convolved map. Sampling is done in fp32: CPUs have no kernel in bf16, and places need the bits."""
        where, how = self.offset(map_BCHW).split([2 * self.points, self.points], dim=1)
        found: Tensor = deform_conv2d(
            map_BCHW.float(),
            where.float(),
            self.weight.float(),
            None if self.bias is None else self.bias.float(),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            mask=2 * how.float().sigmoid(),
        )
        return found.to(map_BCHW.dtype)


class ConvNorm(nn.Module):
    """Convolution without bias, group normalisation, ReLU."""

    def __init__(self, inside: int, outside: int, *, kernel: int = 3, groups: int = 32, deform: bool = False) -> None:
        super().__init__()
        plain = nn.Conv2d(inside, outside, kernel, padding=kernel // 2, bias=False)
        nn.init.normal_(plain.weight, std=STD)
        self.conv: nn.Module = Deformable(plain) if deform else plain
        self.norm = nn.GroupNorm(math.gcd(groups, outside), outside)

    def forward(self, map_BCHW: Tensor) -> Tensor:
        """See the class."""
        return F.relu(self.norm(self.conv(map_BCHW)))


class Tower(nn.ModuleList):
    """Layers one after another, the first `coord_layers` of which see where they are."""

    def __init__(
        self,
        inside: int,
        width: int,
        depth: int,
        *,
        axes: str = "",
        coord_layers: int = 1,
        groups: int = 32,
        deform: str = "none",
    ) -> None:
        self.axes = [axes if number < coord_layers else "" for number in range(depth)]
        super().__init__(
            ConvNorm(
                (width if number else inside) + len(seen),
                width,
                groups=groups,
                deform=deform == "all" or (deform == "last" and number == depth - 1),
            )
            for number, seen in enumerate(self.axes)
        )

    def forward(self, map_BCHW: Tensor) -> Tensor:
        """The map after all layers."""
        for layer, axes in zip(self, self.axes, strict=True):
            map_BCHW = layer(with_coordinates(map_BCHW, axes))
        return map_BCHW


def output(inside: int, outside: int, *, kernel: int, bias: float = 0.0) -> nn.Conv2d:
    """A last convolution, with normally drawn weights."""
    conv = nn.Conv2d(inside, outside, kernel, padding=kernel // 2)
    nn.init.normal_(conv.weight, std=STD)
    nn.init.constant_(conv.bias, bias)  # type: ignore[arg-type]
    return conv


def deform_backbone(backbone: Backbone) -> None:
    """Make the 3x3 convolutions of C3 to C5 deformable, in place; the backbone computes what it did before.

    Raises UserError for a backbone without such blocks.
    """
    blocks = [(name, block) for name, block in backbone.named_modules() if isinstance(block, BasicBlock | Bottleneck)]
    chosen = [block for name, block in blocks if not name.startswith("layer1.")]
    if not chosen:
        raise UserError("this backbone has no convolutions to deform: set deform_backbone to false or take a ResNet.")
    for block in chosen:
        if not isinstance(block.conv2, Deformable):
            block.conv2 = Deformable(block.conv2)
