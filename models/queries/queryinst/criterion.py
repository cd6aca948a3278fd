"""Losses and matching of a stage's classes, boxes and masks (QueryInst, section 3.3; boxes as in Sparse R-CNN).

Shape legend: B images, N queries, M objects of an image, P pairs of all images, K classes, S side of a mask in cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import generalized_box_iou, generalized_box_iou_loss, roi_align

from ...detector import Targets
from ...losses import dice_loss, focal_loss
from ...matching import assign, focal_cost
from ..host import Initial, Pairs, Pyramid, Refined
from .regions import finite_boxes

DICE_EPS = 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class QueryInstInitial(Initial):
    """boxes XYXY [B, N, 4] in pixels; extents [B, 1, 4]: width, height, width, height of each image; the maps."""

    boxes: Tensor
    extents: Tensor
    pyramid: Pyramid


@dataclass(frozen=True, slots=True, eq=False)
class QueryInstRefined(Refined):
    """boxes XYXY [B, N, 4] in pixels; attended [B, N, C], the queries that the mask head listens to."""

    boxes: Tensor
    attended: Tensor


@dataclass(frozen=True, slots=True)
class Weights:
    """Of the losses; those of class and boxes weigh the matching as well."""

    classes: float = 2.0
    l1: float = 5.0
    giou: float = 2.0
    mask: float = 8.0


def match_cost(classes_NK: Tensor, boxes_N4: Tensor, extent_14: Tensor, target: Targets, weights: Weights) -> Tensor:
    """Cost of every pair [N, M]: focal, L1 of boxes over the image's extent, generalised IoU."""
    wanted_M4 = target.boxes.float()
    l1 = torch.cdist(boxes_N4 / extent_14, wanted_M4 / extent_14, p=1)
    giou: Tensor = generalized_box_iou(boxes_N4, wanted_M4)
    return weights.classes * focal_cost(classes_NK, target.labels) + weights.l1 * l1 - weights.giou * giou


@torch.no_grad()
def match_stage(
    stage: QueryInstRefined, extents_B14: Tensor, targets: Sequence[Targets], weights: Weights
) -> list[Pairs]:
    """Pairs of each image, on the stage's own classes and boxes."""
    return [
        assign(match_cost(stage.classes[i].float(), stage.boxes[i], extents_B14[i], target, weights))
        for i, target in enumerate(targets)
    ]


@dataclass(frozen=True, slots=True, eq=False)
class Positives:
    """The pairs of all images in a row: image and query of each, and its object's label, box [P, 4] and mask."""

    images: Tensor
    queries: Tensor
    labels: Tensor
    boxes: Tensor
    masks: Tensor
    has_mask: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def with_masks(self) -> "Positives":
        """Those whose mask may be learned from."""
        keep = self.has_mask
        return Positives(*(one[keep] for one in (self.images, self.queries, self.labels, self.boxes, self.masks, keep)))


def gather_positives(targets: Sequence[Targets], pairs: Sequence[Pairs]) -> Positives:
    """See `Positives`."""
    both = list(zip(targets, pairs, strict=True))
    return Positives(
        images=torch.cat([torch.full_like(queries, image) for image, (queries, _) in enumerate(pairs)]),
        queries=torch.cat([queries for queries, _ in pairs]),
        labels=torch.cat([target.labels[objects] for target, (_, objects) in both]),
        boxes=torch.cat([target.boxes[objects].float() for target, (_, objects) in both]),
        masks=torch.cat([target.masks[objects] for target, (_, objects) in both]),
        has_mask=torch.cat(
            [
                torch.ones_like(objects, dtype=torch.bool) if target.has_mask is None else target.has_mask[objects]
                for target, (_, objects) in both
            ]
        ),
    )


def box_losses(
    stage: QueryInstRefined, extents_B14: Tensor, positives: Positives, weights: Weights, count: Tensor
) -> dict[str, Tensor]:
    """Focal loss of all queries, L1 and generalised IoU of those with an object; sums divided by `count`."""
    wanted = torch.zeros_like(stage.classes, dtype=torch.float32)
    wanted[positives.images, positives.queries, positives.labels] = 1
    boxes_P4 = stage.boxes[positives.images, positives.queries]
    losses = {"class": weights.classes * focal_loss(stage.classes.float(), wanted).sum() / count}
    if not len(positives):
        nothing = 0 * stage.boxes.sum()  # every process needs a gradient for every parameter
        return {**losses, "l1": nothing, "giou": nothing}
    extent_P4 = extents_B14[positives.images, 0]
    l1 = F.l1_loss(boxes_P4 / extent_P4, positives.boxes / extent_P4, reduction="sum")
    giou = generalized_box_iou_loss(boxes_P4, positives.boxes, reduction="sum")
    return {**losses, "l1": weights.l1 * l1 / count, "giou": weights.giou * giou / count}


def mask_loss(logits_PKSS: Tensor, targets_PSS: Tensor, labels_P: Tensor, count: Tensor) -> Tensor:
    """Dice loss of the masks of the objects' own classes, a sum divided by `count`."""
    own = logits_PKSS[torch.arange(len(labels_P), device=labels_P.device), labels_P]
    return dice_loss(own.flatten(1).float(), targets_PSS.flatten(1), eps=DICE_EPS).sum() / count


def mask_targets(masks_PHW: Tensor, boxes_P4: Tensor, side: int) -> Tensor:
    """What lies of each object's mask in its query's box, at the size of the prediction: 0 or 1, [P, S, S].

    Boxes are cut at the edges of the masks, as in the authors' code, though predictions are pasted into whole boxes.
    """
    height, width = masks_PHW.shape[1:]
    edges = torch.tensor([width, height, width, height], device=boxes_P4.device)
    boxes_P4 = torch.minimum(finite_boxes(boxes_P4).clamp_min(0), edges)
    places = torch.arange(len(boxes_P4), device=boxes_P4.device, dtype=torch.float32)
    rois_P5 = torch.cat([places[:, None], boxes_P4], dim=1)
    crops: Tensor = roi_align(masks_PHW[:, None].float(), rois_P5, side, 1.0, 0, aligned=True)
    return (crops[:, 0] >= 0.5).float()
