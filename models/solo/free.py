"""FreeSOLO: SOLOv2 that learns from coarse masks without classes, and says of each object what it is like.

Thesis (Wang, Deep Object Segmentation and Beyond), section 6.2.3.

Shape legend: B images, M objects of an image, P pairs of cell and object, E channels of an embedding, h w cells of a
mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..backbones.base import Backbone
from ..detector import Average, Size, Targets
from ..weak import STRIDE, Affinity, cosine_loss, find_affinity, pairwise_sums, projection_loss
from .criterion import Assigned, Part, assign, chunks, class_loss, count_cells, dice, one_more
from .head import Head
from .model import Solo, crop, padded_size
from .options import Options
from .targets import shrink

Losses = dict[str, Tensor]
Share = tuple[Tensor, Tensor]  # a sum, and what it is divided by


@dataclass(frozen=True, slots=True)
class WeakLoss:
    """What masks learn from and how much of it (Eq. 6.6, 6.8; Table 6.7). Meanings: `schemas/training/freesolo.py`."""

    masks: Literal["weak", "full"] = "weak"
    average: float = 0.1
    maximum: float = 1.0
    pairwise: float = 1.0
    similar: float = 0.3
    reduction: Literal["per_level", "global_mean"] = "per_level"
    embedding: float = 4.0


@dataclass(frozen=True, slots=True, eq=False)
class FreePart(Part):
    """With which neighbours are of a colour, unless masks are learned whole."""

    affinity: Affinity | None


class FreeSolo(Solo):
    """A class-agnostic SOLOv2. `Found.vectors` are its embeddings."""

    def __init__(self, backbone: Backbone, num_classes: int, options: Options, weak: WeakLoss) -> None:
        super().__init__(backbone, num_classes, options)
        self.weak = weak

    def losses(
        self,
        images_B3HW: Tensor,
        sizes: Sequence[Size],
        targets: Sequence[Targets],
        average: Average,
        *,
        comparable: Sequence[Size] | None = None,
        warmth: float = 1.0,
    ) -> Losses:
        """See `Detector`: "class", "mask_max", "mask_average", "mask_pairwise" (or "mask"), and "embedding".

        comparable: (height, width) of each image in which colours may be compared, all of it by default. warmth: the
        share of the pairwise loss that counts so far. Targets without vectors teach no embedding.
        """
        compared = sizes if comparable is None else comparable
        parts = []
        for members, images in self.alike(images_B3HW, sizes):  # see `Solo.losses`
            own = [without_lost(crop(targets[image], padded_size(images))) for image in members]
            affinity = self._affinity(images, [compared[image] for image in members])
            parts.append(FreePart(self.head(self.features(images)), own, padded_size(images), affinity))
        assigned = [assign(part.targets, self.options, part.size) for part in parts]
        device = images_B3HW.device
        count = torch.stack([count_cells(one, device) for one in assigned]).sum()
        classes = [class_loss(part.levels, part.targets, one) for part, one in zip(parts, assigned, strict=True)]
        losses = {"class": self.options.class_weight * torch.stack(classes).sum()}
        losses["class"] = losses["class"] / average(one_more(count, average))
        losses |= mask_losses(self.head, parts, assigned, self.weak)
        if self.weak.masks == "weak":
            losses["mask_pairwise"] = losses["mask_pairwise"] * warmth
        if self.weak.embedding and self.options.embedding:
            losses["embedding"] = self.weak.embedding * embedding_loss(parts, assigned, average)
        idle = torch.stack([p.float().sum() for p in self.head.parameters() if p.requires_grad]).sum()
        losses["class"] = losses["class"] + 0 * idle  # every process needs a gradient for every parameter
        return losses

    def class_layers(self) -> list[str]:
        """See `Detector`; the embedding has no target where there are classes (section 6.2.1)."""
        return [*super().class_layers(), "head.embedding."]

    @torch.no_grad()
    def _affinity(self, images_B3HW: Tensor, compared: Sequence[Size]) -> Affinity | None:
        if self.weak.masks == "full":
            return None
        with torch.autocast(images_B3HW.device.type, enabled=False):
            return find_affinity(self._colours(images_B3HW), compared, self.weak.similar)

    def _colours(self, images_B3HW: Tensor) -> Tensor:
        """RGB in 0..255 of normalised images."""
        mean, std = (
            torch.tensor(one, device=images_B3HW.device).view(1, 3, 1, 1)
            for one in (self.backbone.mean, self.backbone.std)
        )
        return (images_B3HW.float() * std + mean).round().clamp(0, 255)


def without_lost(target: Targets) -> Targets:
    """The objects whose masks are still there at a quarter of the size."""
    keep = shrink(target.masks, STRIDE).flatten(1).bool().any(1)
    if bool(keep.all()):
        return target
    return Targets(
        target.masks[keep],
        target.labels[keep],
        target.boxes[keep],
        target.weights[keep],
        None if target.has_mask is None else target.has_mask[keep],
        None if target.vectors is None else target.vectors[keep],
    )


def mask_losses(
    head: Head, parts: Sequence[FreePart], assigned: Sequence[Sequence[Assigned]], weak: WeakLoss
) -> Losses:
    """Weighted losses of masks, by kind; with full masks their Dice distance as "mask".

    Reduction is as the authors' code has it: the mean over the cells of a level, then over the levels that have any;
    or, with `global_mean`, over all cells at once.
    """
    weights = {"mask": 1.0}
    if weak.masks == "weak":
        weights = {"mask_max": weak.maximum, "mask_average": weak.average, "mask_pairwise": weak.pairwise}
    sums: dict[int, dict[str, Share]] = {}  # by level and kind
    for part, here in zip(parts, assigned, strict=True):
        coarse = [shrink(target.masks, STRIDE).float() for target in part.targets]
        for one in here:
            for cells, objects in chunks(one.cells):
                logits_Phw = head.logits(part.levels[one.number], one.number, one.image, cells).float()
                found = _kinds(logits_Phw, coarse[one.image][objects], part.affinity, one.image)
                total = sums.setdefault(one.number, {})
                for kind, (value, count) in found.items():
                    before = total.get(kind, (value.new_zeros(()), count.new_zeros(())))
                    total[kind] = (before[0] + value, before[1] + count)
    zero = parts[0].levels[0].classes.new_zeros((), dtype=torch.float32)
    levels = [sums[number] for number in sorted(sums)]
    return {kind: weight * _reduce([one[kind] for one in levels], weak, zero) for kind, weight in weights.items()}


def embedding_loss(parts: Sequence[FreePart], assigned: Sequence[Sequence[Assigned]], average: Average) -> Tensor:
    """1 - cos of each cell's embedding and its object's vector, averaged over the cells with one (Eq. 6.7)."""
    total = parts[0].levels[0].classes.new_zeros((), dtype=torch.float32)
    count = torch.zeros((), device=total.device)
    for part, here in zip(parts, assigned, strict=True):
        for one in here:
            wanted, vectors = part.targets[one.image].vectors, part.levels[one.number].vectors
            if wanted is None or vectors is None:
                continue
            positive = (one.cells.owners >= 0).nonzero()[:, 0]
            owners = one.cells.owners[positive]
            told = wanted[owners].square().sum(1) > 0  # an object that nothing is known of has zeros
            predicted_PE = vectors[one.image].flatten(1)[:, positive[told]].T.float()
            total = total + cosine_loss(predicted_PE, wanted[owners[told]].float()).sum()
            count = count + told.sum()
    return total / average(count)


def _kinds(logits_Phw: Tensor, coarse_Phw: Tensor, affinity: Affinity | None, image: int) -> dict[str, Share]:
    """Of each kind of loss its sum over some masks, and how much that is a sum of."""
    masks = torch.tensor(float(len(logits_Phw)), device=logits_Phw.device)
    if affinity is None:
        return {"mask": (dice(logits_Phw, coarse_Phw).sum(), masks)}
    soft_Phw = logits_Phw.sigmoid()
    losses_P, pairs_P = pairwise_sums(logits_Phw, coarse_Phw, affinity, image)
    return {
        "mask_max": (projection_loss(soft_Phw, coarse_Phw, "max").sum(), masks),
        "mask_average": (projection_loss(soft_Phw, coarse_Phw, "mean").sum(), masks),
        "mask_pairwise": (losses_P.sum(), pairs_P.sum()),
    }


def _reduce(levels: Sequence[Share], weak: WeakLoss, zero: Tensor) -> Tensor:
    if not levels:
        return zero
    if weak.reduction == "global_mean":
        levels = [(torch.stack([one[0] for one in levels]).sum(), torch.stack([one[1] for one in levels]).sum())]
    return torch.stack([value / count.clamp_min(1) for value, count in levels]).mean()
