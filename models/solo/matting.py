"""Soft mattes of instances at full resolution (thesis, section 4.3.4).

The mask feature at full resolution, F' = U F + W h + b, with U bilinear upsampling, h the details and W, b a 1x1
convolution, has 256 channels: a gigabyte for one image. A matte is k . F', and all of that is linear, so that
k . F' = U (k . F) + (W^T k) . h + k . b: it needs one map for each matte, and never F'.

Shape legend: B images, E channels of the mask feature, D of the details, N chosen cells, M objects of an image,
P pairs of cell and object, H W pixels of the padded image, h w cells at stride 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...schemas.errors import UserError
from ..backbones.base import Backbone
from ..detector import Average, Found, Limits, Size, Targets
from ..losses import dice_distance
from .criterion import assign, count_cells
from .dynamic import DynamicHead
from .head import Level
from .layers import output, resize
from .model import Solo
from .options import Options

CHUNK = 16  # mattes whose full maps are held at once


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class MattingTargets(Targets):
    """Objects (masks: alpha above 0.5), their alphas in 0..1 [M, H, W], and which of these resolve edges: bool [M]."""

    alphas: Tensor
    soft: Tensor


class Details(nn.Module):
    """Mask feature and image to details at full resolution: 1x1 to D, enlarged, beside RGB, three 3x3 with ReLU.

    `mix` is the last 1x1 convolution. It starts at zero: at first mattes are SOLOv2's masks, enlarged.
    """

    def __init__(self, feature_channels: int, width: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(feature_channels, width, 1)
        self.layers = nn.ModuleList(
            nn.Conv2d(width if number else width + 3, width, 3, padding=1) for number in range(3)
        )
        self.mix = output(width, feature_channels, kernel=1)
        nn.init.zeros_(self.mix.weight)

    def forward(self, feature_BEhw: Tensor, images_B3HW: Tensor) -> Tensor:
        """The details [B, D, H, W]."""
        size = (images_B3HW.shape[2], images_B3HW.shape[3])
        details = torch.cat([resize(self.reduce(feature_BEhw), size), images_B3HW], dim=1)
        for layer in self.layers:
            details = F.relu(layer(details))
        return details

    def mattes(self, kernels_NE: Tensor, feature_Ehw: Tensor, details_DHW: Tensor) -> Tensor:
        """Matte logits [N, H, W], without the full-resolution feature."""
        coarse_Nhw = torch.einsum("ne,ehw->nhw", kernels_NE, feature_Ehw)
        size = (details_DHW.shape[1], details_DHW.shape[2])
        mix_ED, bias_E = self.mix.weight[:, :, 0, 0], self.mix.bias
        assert bias_E is not None
        fine_NHW = torch.einsum("nd,dhw->nhw", kernels_NE @ mix_ED, details_DHW)
        return resize(coarse_Nhw[None], size)[0] + fine_NHW + (kernels_NE @ bias_E)[:, None, None]


class MattingSolo(Solo):
    """SOLOv2 whose masks are mattes at full resolution. The category branch stays as it was loaded."""

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        options: Options,
        *,
        details: int = 32,
        dice_weight: float = 3.0,
        mae_weight: float = 1.0,
        band: int = 5,
    ) -> None:
        super().__init__(backbone, num_classes, options)
        if options.head != "dynamic" or options.kernel_size != 1 or options.mask_feature != "unified":
            raise UserError("mattes need SOLOv2 with 1x1 kernels and a unified mask feature: take preset solov2.")
        self.details = Details(options.kernel_channels, details)
        self.dice_weight, self.mae_weight, self.band = dice_weight, mae_weight, band
        assert isinstance(self.head, DynamicHead)
        for part in (self.head.class_tower, self.head.classes):
            part.requires_grad_(False)

    def losses(
        self, images_B3HW: Tensor, sizes: Sequence[Size], targets: Sequence[Targets], average: Average
    ) -> dict[str, Tensor]:
        """Losses "dice" and "mae" of the mattes of all cells with an object. The targets must be `MattingTargets`."""
        dice, mae, positive = (images_B3HW.new_zeros(()) for _ in range(3))
        for members, images in self.alike(images_B3HW, sizes):
            size = (images.shape[2], images.shape[3])
            own = [_crop(targets[image], size) for image in members]
            sums = self._sums(images, own, size)
            dice, mae, positive = dice + sums[0], mae + sums[1], positive + sums[2]
        count = average(positive)
        return {"dice": self.dice_weight * dice / count, "mae": self.mae_weight * mae / count}

    def _sums(
        self, images_B3HW: Tensor, targets: Sequence[MattingTargets], size: Size
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of images that are alike the sums of both losses, and the number of cells that they are sums over."""
        pyramid = self.features(images_B3HW)
        levels = self.head(pyramid)
        details_BDHW = self.details(levels[0].maps[0], images_B3HW)
        trained = [p.float().sum() for p in self.parameters() if p.requires_grad]
        nothing = 0 * torch.stack([*trained, *(one.float().sum() for one in pyramid)]).sum()
        dice, mae = nothing, nothing
        assigned = assign(targets, self.options, size)
        for one in assigned:
            target = targets[one.image]
            for start in range(0, len(one.cells.cells), CHUNK):
                cells, objects = (part[start : start + CHUNK] for part in (one.cells.cells, one.cells.objects))
                losses = checkpoint(
                    self._compare,
                    _kernels(levels[one.number], one.image, cells),
                    levels[0].maps[0][one.image],
                    details_BDHW[one.image],
                    target,
                    objects,
                    use_reentrant=False,
                )
                weights = target.weights[objects].float()
                dice, mae = dice + (losses[0] * weights).sum(), mae + (losses[1] * weights).sum()
        return dice, mae, count_cells(assigned, images_B3HW.device)

    def find(self, images_B3HW: Tensor, sizes: Sequence[Size], limits: Limits) -> list[Found]:
        """See `Detector`; the maps are mattes, at full resolution. Which are found is decided at stride 4."""
        found: dict[int, Found] = {}
        height, width = images_B3HW.shape[2:]
        for members, images in self.alike(images_B3HW, sizes):
            levels = self.head(self.features(images))
            details_BDHW = self.details(levels[0].maps[0], images)
            for place, (image, one) in enumerate(zip(members, self.find_in(levels, images, limits), strict=True)):
                mattes_nHW = self._mattes_of(levels, place, one.sources, details_BDHW[place])
                margins = (0, width - mattes_nHW.shape[2], 0, height - mattes_nHW.shape[1])
                found[image] = Found(F.pad(mattes_nHW, margins), one.scores, one.labels, one.sources)
        return [found[image] for image in range(len(sizes))]

    def _mattes_of(self, levels: Sequence[Level], image: int, sources: Tensor, details_DHW: Tensor) -> Tensor:
        """Mattes [n, H, W] in 0..1 of cells that are counted over all levels."""
        kernels = torch.cat([_kernels(level, image, None) for level in levels])[sources]
        mattes: Tensor = self.details.mattes(kernels, levels[0].maps[0][image], details_DHW)
        return mattes.float().sigmoid()

    def _compare(
        self, kernels_PE: Tensor, feature_Ehw: Tensor, details_DHW: Tensor, target: MattingTargets, objects: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Dice distance and mean absolute error of each pair [P]."""
        found_PHW = self.details.mattes(kernels_PE, feature_Ehw, details_DHW).float().sigmoid()
        wanted_PHW = target.alphas[objects].float()
        known_PHW = ~edge_band(wanted_PHW, self.band) | target.soft[objects][:, None, None]
        error_P = ((found_PHW - wanted_PHW).abs() * known_PHW).sum((1, 2)) / known_PHW.sum((1, 2)).clamp_min(1)
        return dice_distance(found_PHW.flatten(1), wanted_PHW.flatten(1)), error_P


def edge_band(alphas_PHW: Tensor, width: int) -> Tensor:
    """Pixels within `width` of the edge of a binary alpha, on both sides: bool [P, H, W]."""
    if not width:
        return torch.zeros_like(alphas_PHW, dtype=torch.bool)
    inside = (alphas_PHW > 0.5).float()[:, None]
    largest, least = (sign * F.max_pool2d(sign * inside, 2 * width + 1, 1, width) for sign in (1, -1))
    return (largest > least)[:, 0]


def _kernels(level: Level, image: int, cells: Tensor | None) -> Tensor:
    """Kernels [N, E] of cells, or of all."""
    assert level.kernels is not None
    kernels = level.kernels[image].flatten(1).T
    return kernels if cells is None else kernels[cells]


def _crop(target: Targets, size: Size) -> MattingTargets:
    """See `model.crop`."""
    known, (height, width) = _alphas_of(target), size
    return replace(known, masks=known.masks[:, :height, :width], alphas=known.alphas[:, :height, :width])


def _alphas_of(target: Targets) -> MattingTargets:
    if not isinstance(target, MattingTargets):
        raise UserError("a matting model learns alphas: give a folder of mattes.")
    if target.alphas.shape != target.masks.shape:
        raise UserError("a matte has another size than its image: make mattes of the photographs as they are stored.")
    return target
