"""Things and stuff at once: a semantic branch beside the instances (thesis, section 4.3.3; Panoptic FPN).

Shape legend: B images, T classes of stuff, n instances, H W pixels, h w cells at stride 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...schemas.errors import UserError
from ..backbones.base import Backbone
from ..detector import Average, Found, Limits, Size, Targets
from .criterion import Part, joint_losses
from .dynamic import UnifiedFeature
from .layers import output
from .model import STRIDE, Solo, crop
from .options import Options

IGNORE = 255  # a pixel that no class is learned from
THING = 0  # the semantic class of all things together; classes of stuff follow


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PanopticTargets(Targets):
    """Objects, and the class of every pixel, uint8 [H, W]: 0 things, 1..T stuff, 255 unknown or padding."""

    semantic: Tensor


@dataclass(frozen=True, slots=True)
class MergeRules:
    """How things and stuff are put into one picture (as Panoptic FPN, with its public defaults)."""

    min_score: float = 0.5
    max_covered: float = 0.5
    min_stuff: int = 4096


@dataclass(frozen=True, slots=True)
class Segment:
    """One of a picture: its number there, its label (of things, or 0..T-1 of stuff), and its score (things)."""

    number: int
    is_thing: bool
    label: int
    area: int
    score: float | None


class PanopticSolo(Solo):
    """A member of the family with a semantic branch: the unified mask feature without coordinates, and 1x1."""

    def __init__(
        self, backbone: Backbone, num_classes: int, options: Options, *, num_stuff: int, semantic_weight: float = 0.5
    ) -> None:
        super().__init__(backbone, num_classes, options)
        if options.single_level:
            raise UserError("stuff is read from the whole pyramid: set single_level to false.")
        self.num_stuff, self.semantic_weight = num_stuff, semantic_weight
        self.semantic = UnifiedFeature(
            options.channels, options.feature_width, None, coords=False, groups=options.feature_groups
        )
        self.semantic_classes = output(options.feature_width, 1 + num_stuff, kernel=1)

    def losses(
        self, images_B3HW: Tensor, sizes: Sequence[Size], targets: Sequence[Targets], average: Average
    ) -> dict[str, Tensor]:
        """See `Solo`, and "semantic". The targets must be `PanopticTargets`."""
        parts, total, pixels = [], images_B3HW.new_zeros(()), images_B3HW.new_zeros(())
        for members, images in self.alike(images_B3HW, sizes):
            size = (images.shape[2], images.shape[3])
            pyramid = self.features(images)
            parts.append(Part(self.head(pyramid), [crop(targets[image], size) for image in members], size))
            wanted_BHW = torch.stack([_semantic_of(targets[image])[: size[0], : size[1]] for image in members]).long()
            logits = self._semantic_logits(pyramid).float()
            logits_BTHW = F.interpolate(logits, size, mode="bilinear", align_corners=False)
            total = total + F.cross_entropy(logits_BTHW, wanted_BHW, ignore_index=IGNORE, reduction="sum")
            pixels = pixels + (wanted_BHW != IGNORE).sum().float()
        losses = joint_losses(self.head, parts, average)
        return {**losses, "semantic": self.semantic_weight * total / average(pixels)}

    def find_all(self, images_B3HW: Tensor, sizes: Sequence[Size], limits: Limits) -> list[tuple[Found, Tensor]]:
        """Instances of each image, and its logits of things and stuff [1 + T, h, w] on the whole padded image."""
        found: dict[int, tuple[Found, Tensor]] = {}
        for members, images in self.alike(images_B3HW, sizes):
            pyramid = self.features(images)
            semantic = self._semantic_logits(pyramid).float()
            things = self.find_in(self.head(pyramid), images, limits)
            for image, one, logits in zip(members, things, semantic, strict=True):
                found[image] = (self.pad(one, images_B3HW), self.pad_maps(logits, images_B3HW))
        return [found[image] for image in range(len(sizes))]

    def class_layers(self) -> list[str]:
        """See `Detector`."""
        return [*super().class_layers(), "semantic_classes."]

    def _semantic_logits(self, pyramid: Sequence[Tensor]) -> Tensor:
        logits: Tensor = self.semantic_classes(self.semantic(pyramid))
        return logits


def semantic_at(logits_Thw: Tensor, resized: Size, stored: Size) -> Tensor:
    """The class of every pixel of the stored image, int64 [H, W], from logits on the padded one."""
    large = F.interpolate(logits_Thw[None], scale_factor=STRIDE, mode="bilinear", align_corners=False)
    cropped = large[:, :, : resized[0], : resized[1]]
    return F.interpolate(cropped, stored, mode="bilinear", align_corners=False)[0].argmax(0)


def merge(
    masks_nHW: Tensor, scores: Tensor, labels: Tensor, semantic_HW: Tensor, rules: MergeRules
) -> tuple[Tensor, list[Segment]]:
    """One picture of segments, int64 [H, W], 0 where nothing is; and its segments, numbered from 1.

    Instances come best first. Each takes what better ones left of it, unless they took too large a share; then stuff
    takes what is left, unless that is too little.
    """
    picture_HW = torch.zeros_like(semantic_HW, dtype=torch.int64)
    segments: list[Segment] = []
    for place in (scores >= rules.min_score).nonzero()[:, 0].tolist():
        mask_HW = masks_nHW[place].bool()
        free_HW = mask_HW & (picture_HW == 0)
        area, free = int(mask_HW.sum()), int(free_HW.sum())
        if free and area - free <= rules.max_covered * area:
            segments.append(Segment(len(segments) + 1, True, int(labels[place]), free, float(scores[place])))
            picture_HW[free_HW] = segments[-1].number
    for label in semantic_HW.unique().tolist():  # type: ignore[no-untyped-call]
        free_HW = (semantic_HW == label) & (picture_HW == 0)
        area = int(free_HW.sum())
        if label not in (THING, IGNORE) and area and area >= rules.min_stuff:
            segments.append(Segment(len(segments) + 1, False, label - 1, area, None))
            picture_HW[free_HW] = segments[-1].number
    return picture_HW, segments


def _semantic_of(target: Targets) -> Tensor:
    if not isinstance(target, PanopticTargets):
        raise UserError("a panoptic model learns things and stuff: give panoptic annotations.")
    return target.semantic
