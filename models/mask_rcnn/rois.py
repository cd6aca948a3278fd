"""Regions of interest: which are trained on, what is lost on them, and which become detections.

Shape legend: B images, M objects of an image, R regions, P those that hold an object, K classes, C channels, H W pixels
of the padded batch, S cells of a region's side. Labels here count the background as 0, as torchvision's weights do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.roi_heads import RoIHeads, project_masks_on_boxes
from torchvision.ops import MultiScaleRoIAlign, batched_nms, clip_boxes_to_image, remove_small_boxes

from ..detector import Average, Size, Targets
from .proposals import BETA


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """Regions of a batch, by image: boxes XYXY [R, 4], the object of each [R], labels [R], deltas to it [R, 4].

    The object of a region with label 0 means nothing.
    """

    boxes: list[Tensor]
    objects: list[Tensor]
    labels: list[Tensor]
    deltas: list[Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Positives:
    """Regions that hold an object, in the order of images.

    boxes [P_i, 4] by image; places [P] among all regions of the batch; labels [P]; masks [P, S, S] in 0..1 of the
    object in the region; has_mask [P]; is_truth [P]: the region is the object's box itself; weights [P].
    """

    boxes: list[Tensor]
    places: Tensor
    labels: Tensor
    masks: Tensor
    has_mask: Tensor
    is_truth: Tensor
    weights: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Of one image, best first: boxes [n, 4], scores [n], labels [n] and the regions [n] they come from."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    sources: Tensor


def pool_regions(pool: MultiScaleRoIAlign, pyramid: dict[str, Tensor], boxes: Sequence[Tensor], padded: Size) -> Tensor:
    """What lies in the boxes of each image, each from the level that suits its size: [R, C, S, S].

    `padded` is the batch's size: torchvision would take the scale of a level from that of the largest image in it,
    which misses where the padding is wide.
    """
    pooled: Tensor = pool(pyramid, list(boxes), [padded])
    return pooled


def sample_regions(heads: RoIHeads, proposals: Sequence[Tensor], targets: Sequence[Targets]) -> Sampled:
    """Regions to train on: of proposals and the objects' own boxes, a fixed number with a share of positives."""
    wanted = [{"boxes": one.boxes, "labels": one.labels + 1, "masks": one.masks} for one in targets]
    return Sampled(*heads.select_training_samples(list(proposals), wanted))


def positive_regions(sampled: Sampled, targets: Sequence[Targets], side: int) -> Positives:
    """Those of the regions that hold an object, with the object's mask at `side` cells."""
    boxes, places, masks, has_mask, is_truth, weights = [], [], [], [], [], []
    start = 0
    for image, target in enumerate(targets):
        inside = (sampled.labels[image] > 0).nonzero().flatten()
        objects = sampled.objects[image][inside]
        boxes.append(sampled.boxes[image][inside])
        places.append(inside + start)
        start += len(sampled.labels[image])
        if not len(inside):
            continue
        used, of_used = torch.unique(objects, return_inverse=True)  # masks become fp32: only those that are looked at
        masks.append(project_masks_on_boxes(target.masks[used], boxes[-1], of_used, side))
        known = torch.ones_like(target.labels, dtype=torch.bool) if target.has_mask is None else target.has_mask
        has_mask.append(known[objects])
        is_truth.append((boxes[-1] == target.boxes.to(boxes[-1])[objects]).all(1))
        weights.append(target.weights[objects])
    labels = torch.cat(sampled.labels)
    chosen = torch.cat(places)
    none = chosen.new_zeros(0)
    return Positives(
        boxes,
        chosen,
        labels[chosen],
        torch.cat(masks).float() if masks else none.new_zeros((0, side, side), dtype=torch.float32),
        torch.cat(has_mask) if has_mask else none.bool(),
        torch.cat(is_truth) if is_truth else none.bool(),
        torch.cat(weights).float() if weights else none.float(),
    )


def box_losses(
    logits_RK: Tensor, deltas_R4K: Tensor, sampled: Sampled, positives: Positives, average: Average
) -> dict[str, Tensor]:
    """Cross-entropy of classes and smooth L1 of the true class's box, both over the number of regions.

    A region that holds an object counts by the object's weight.
    """
    labels = torch.cat(sampled.labels)
    weights = torch.ones_like(labels, dtype=torch.float32).index_put((positives.places,), positives.weights)
    count = average(weights.new_tensor(float(len(labels))))
    classes = (F.cross_entropy(logits_RK.float(), labels, reduction="none") * weights).sum()
    moved_P4 = deltas_R4K.float().view(*logits_RK.shape, 4)[positives.places, positives.labels]
    wanted_P4 = torch.cat(sampled.deltas)[positives.places]
    boxes = F.smooth_l1_loss(moved_P4, wanted_P4, beta=BETA, reduction="none").sum(1)
    return {"class": classes / count, "box": (boxes * positives.weights).sum() / count}


def mask_loss(logits_PKSS: Tensor, positives: Positives, average: Average, *, truth_only: bool = False) -> Tensor:
    """Cross-entropy of pixels, averaged over those regions whose object has a mask; K = 1 serves all classes.

    With `truth_only` over the objects' own boxes among them. Without such a region it is 0 and still has a gradient.
    """
    wanted = positives.has_mask & positives.is_truth if truth_only else positives.has_mask
    logits_PSS = choose_masks(logits_PKSS, positives.labels).float()
    each = F.binary_cross_entropy_with_logits(logits_PSS, positives.masks, reduction="none").mean((1, 2))
    # chosen rather than multiplied: what a mask that is no truth says must not matter, not even where it is no number
    total = (each[wanted] * positives.weights[wanted]).sum() + 0 * logits_PKSS.float().sum()
    return total / average(wanted.sum().float())


def choose_masks(logits_PKSS: Tensor, labels_P: Tensor) -> Tensor:
    """The mask of each region's class, or the only one: [P, S, S]."""
    if logits_PKSS.shape[1] == 1:
        return logits_PKSS[:, 0]
    return logits_PKSS[torch.arange(len(labels_P), device=labels_P.device), labels_P]


def detect(
    heads: RoIHeads,
    logits_RK: Tensor,
    deltas_R4K: Tensor,
    proposals: Sequence[Tensor],
    sizes: Sequence[Size],
    *,
    above: float,
    least: float,
    most: int,
) -> list[Detections]:
    """Boxes of each image, decoded, clipped to it and suppressed per class; scores above `above`, from `least` on."""
    counts = [len(one) for one in proposals]
    boxes_RK4 = heads.box_coder.decode(deltas_R4K.float(), list(proposals)).view(*logits_RK.shape, 4)
    scores_RK = logits_RK.float().softmax(1)
    found = []
    for boxes, scores, size in zip(torch.split(boxes_RK4, counts), torch.split(scores_RK, counts), sizes, strict=True):
        within = clip_boxes_to_image(boxes[:, 1:], size).reshape(-1, 4)
        flat = scores[:, 1:].flatten()
        keep = ((flat > above) & (flat >= least)).nonzero().flatten()
        keep = keep[remove_small_boxes(within[keep], min_size=1e-2)]
        classes = scores.shape[1] - 1
        labels, sources = keep % classes + 1, keep // classes
        best = batched_nms(within[keep], flat[keep], labels, heads.nms_thresh)[:most]
        found.append(Detections(within[keep][best], flat[keep][best], labels[best], sources[best]))
    return found
