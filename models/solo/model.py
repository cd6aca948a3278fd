"""SOLO, Decoupled SOLO and SOLOv2 as detectors: backbone, pyramid, head (thesis, chapters 3 and 4).

Shape legend: B images, C channels, H W pixels of the padded batch.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from ...schemas.errors import UserError
from ..backbones.base import LEVELS, Backbone
from ..detector import Average, Detector, Found, Limits, Size, Targets
from .criterion import Part, joint_losses
from .dynamic import DynamicHead
from .head import DecoupledHead, Head, Level, SoloHead
from .inference import find_instances
from .layers import deform_backbone, resize
from .options import Options

STRIDE = 4  # of the maps that are found
HEADS: dict[str, Callable[[int, Options], Head]] = {
    "solo": SoloHead,
    "decoupled": DecoupledHead,
    "dynamic": DynamicHead,
}


class Pyramid(nn.Module):
    """P2 to P6 by a feature pyramid network; P6 is every second cell of P5."""

    def __init__(self, backbone: Backbone, channels: int) -> None:
        super().__init__()
        widths = [backbone.channels[level] for level in LEVELS]
        self.fpn = FeaturePyramidNetwork(widths, channels, extra_blocks=LastLevelMaxPool())

    def forward(self, maps: dict[str, Tensor]) -> list[Tensor]:
        """Of C2 to C5."""
        return list(self.fpn({level: maps[level] for level in LEVELS}).values())


class SingleMap(nn.Module):
    """C3 to C5 as one map at stride 8 (thesis, Table 3.2): 1x1 convolutions, resized, summed, smoothed by a 3x3."""

    def __init__(self, backbone: Backbone, channels: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(backbone.channels[level], channels, 1) for level in LEVELS[1:])
        self.smooth = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, maps: dict[str, Tensor]) -> list[Tensor]:
        """Of C3 to C5."""
        size = (maps["c3"].shape[2], maps["c3"].shape[3])
        merged = [resize(lateral(maps[level]), size) for lateral, level in zip(self.laterals, LEVELS[1:], strict=True)]
        return [self.smooth(torch.stack(merged).sum(0))]


class Solo(Detector):
    """A member of the family. Maps are found at stride 4, of the whole padded image."""

    def __init__(self, backbone: Backbone, num_classes: int, options: Options) -> None:
        super().__init__()
        _check(backbone, options)
        if options.deform_backbone:
            deform_backbone(backbone)
        self.backbone, self.num_classes, self.options = backbone, num_classes, options
        self.pyramid = (SingleMap if options.single_level else Pyramid)(backbone, options.channels)
        self.head = HEADS[options.head](num_classes, options)

    def features(self, images_B3HW: Tensor) -> list[Tensor]:
        """P2 to P6, or the single map."""
        maps: list[Tensor] = self.pyramid(self.backbone(images_B3HW, "c5"))
        return maps

    def losses(
        self, images_B3HW: Tensor, sizes: Sequence[Size], targets: Sequence[Targets], average: Average
    ) -> dict[str, Tensor]:
        """See `Detector`: "class" and "mask".

        Grids lie over the padded image. So that an image is learned as it will be looked at, images of one size are run
        together here as in `find`: in a batch of upright and wide photographs all would else be padded to squares.
        """
        parts = []
        for members, images in self.alike(images_B3HW, sizes):
            own = [crop(targets[image], padded_size(images)) for image in members]
            parts.append(Part(self.head(self.features(images)), own, padded_size(images)))
        return joint_losses(self.head, parts, average)

    def find(self, images_B3HW: Tensor, sizes: Sequence[Size], limits: Limits) -> list[Found]:
        """See `Detector`.

        For an image's instances not to depend on its neighbours, images of one size are run together, with no more
        padding than `multiple` asks for.
        """
        found: dict[int, Found] = {}
        for members, images in self.alike(images_B3HW, sizes):
            things = self.find_in(self.head(self.features(images)), images, limits)
            found.update((image, self.pad(one, images_B3HW)) for image, one in zip(members, things, strict=True))
        return [found[image] for image in range(len(sizes))]

    def alike(self, images_B3HW: Tensor, sizes: Sequence[Size]) -> Iterator[tuple[list[int], Tensor]]:
        """Images that are run together, and their numbers."""
        for (rows, columns), members in groups(sizes, self.multiple).items():
            yield members, images_B3HW[members, :, :rows, :columns]

    def find_in(self, levels: Sequence[Level], images_B3HW: Tensor, limits: Limits) -> list[Found]:
        """Instances of images that are alike, from the head's answer."""
        quarter = _quarter(images_B3HW)
        return [find_instances(self.head, levels, image, limits, quarter) for image in range(len(images_B3HW))]

    @staticmethod
    def pad(found: Found, images_B3HW: Tensor) -> Found:
        """The same on maps of the whole batch's size."""
        return replace(found, maps=Solo.pad_maps(found.maps, images_B3HW))

    @staticmethod
    def pad_maps(maps_nhw: Tensor, images_B3HW: Tensor) -> Tensor:
        """Maps [n, h, w] of the whole batch's size."""
        height, width = _quarter(images_B3HW)
        return F.pad(maps_nhw, (0, width - maps_nhw.shape[2], 0, height - maps_nhw.shape[1]))

    def class_layers(self) -> list[str]:
        """See `Detector`."""
        return ["head.classes."]


def crop(targets: Targets, size: Size) -> Targets:
    """The objects of an image that lies in the upper left corner of so many pixels of its batch."""
    height, width = size
    return replace(targets, masks=targets.masks[:, :height, :width])


def groups(sizes: Sequence[Size], multiple: int) -> dict[Size, list[int]]:
    """Images by their size, rounded up to a multiple."""
    found: dict[Size, list[int]] = {}
    for image, (height, width) in enumerate(sizes):
        size = (-(-height // multiple) * multiple, -(-width // multiple) * multiple)
        found.setdefault(size, []).append(image)
    return found


def _check(backbone: Backbone, options: Options) -> None:
    if missing := [level for level in LEVELS if level not in backbone.channels]:
        raise UserError(
            f"this backbone has no level {missing[0]}: take one with {', '.join(LEVELS)}, such as resnet50."
        )
    levels = 1 if options.single_level else 5
    if len(options.grids) != levels:
        raise UserError(f"grids has {len(options.grids)} entries, but there are {levels} levels: give {levels}.")
    if not options.single_level and len(options.ranges) != levels:
        raise UserError(f"ranges has {len(options.ranges)} entries, but there are {levels} levels: give {levels}.")
    if options.single_level and options.head == "dynamic" and options.mask_feature == "unified":
        raise UserError('a single level has no pyramid to unify: set mask_feature to "separate".')


def padded_size(images_B3HW: Tensor) -> Size:
    """Height and width that images of a batch share."""
    return images_B3HW.shape[2], images_B3HW.shape[3]


def _quarter(images_B3HW: Tensor) -> Size:
    return images_B3HW.shape[2] // STRIDE, images_B3HW.shape[3] // STRIDE
