"""All losses of a batch: initial masks, semantic map, classes and masks of every stage.

Shape legend: B images, N queries, M objects of an image, K classes, H W pixels of the batch, h w cells at stride 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...detector import Average, Targets
from ...losses import dice_loss, focal_loss
from ...matching import assign, match_cost
from ..host import Initial, Pairs, Refined, refuse_boxes

TARGET_STRIDE = 4


@dataclass(frozen=True, slots=True, eq=False)
class KNetInitial(Initial):
    """masks [B, N, ., .] and semantic [B, K, ., .] logits; features [B, C, ., .] that the stages look at."""

    masks: Tensor
    semantic: Tensor
    features: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class KNetRefined(Refined):
    """masks [B, N, ., .] logits."""

    masks: Tensor


@dataclass(frozen=True, slots=True)
class Weights:
    """Of the losses; those of class, Dice and mask weigh the matching as well."""

    classes: float = 2.0
    dice: float = 4.0
    mask: float = 1.0
    semantic: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class SoftTargets:
    """Objects of one image: soft masks [M, h, w] in 0..1, labels [M]."""

    masks: Tensor
    labels: Tensor


def shrink_masks(masks_MHW: Tensor) -> Tensor:
    """Masks of the padded image at stride 4, bilinear and left soft, as the losses compare them: [M, h, w]."""
    size = (masks_MHW.shape[1] // TARGET_STRIDE, masks_MHW.shape[2] // TARGET_STRIDE)
    if not len(masks_MHW):
        return masks_MHW.new_zeros((0, *size), dtype=torch.float32)
    return F.interpolate(masks_MHW[None].float(), size, mode="bilinear", align_corners=False)[0]


def knet_losses(
    initial: KNetInitial,
    stages: Sequence[KNetRefined],
    targets: Sequence[Targets],
    weights: Weights,
    average: Average,
) -> tuple[dict[str, Tensor], list[list[Pairs]]]:
    """Weighted losses by name, and the pairs of every stage by image (K-Net, section 3.3).

    A stage is matched on the masks and classes before it, the first one and the initial masks without classes.
    """
    refuse_boxes(targets)
    soft = [SoftTargets(shrink_masks(target.masks), target.labels) for target in targets]
    size = (soft[0].masks.shape[1], soft[0].masks.shape[2])
    before = _upsample(initial.masks, size)
    pairs = _match(None, before, soft, weights)
    count = average(before.new_tensor(float(sum(len(queries) for queries, _ in pairs)), dtype=torch.float32))
    losses = {f"initial_{name}": value for name, value in _mask_losses(before, soft, pairs, weights, count).items()}
    losses["semantic"] = weights.semantic * _semantic_loss(_upsample(initial.semantic, size), soft, average)
    matched: list[list[Pairs]] = []
    for number, stage in enumerate(stages, start=1):
        masks = _upsample(stage.masks, size)
        matched.append(pairs)
        losses[f"class_{number}"] = weights.classes * _class_loss(stage.classes, soft, pairs, count)
        for name, value in _mask_losses(masks, soft, pairs, weights, count).items():
            losses[f"{name}_{number}"] = value
        if number < len(stages):
            pairs = _match(stage.classes, masks, soft, weights)
    return losses, matched


def _match(
    classes_BNK: Tensor | None, masks_BNhw: Tensor, targets: Sequence[SoftTargets], weights: Weights
) -> list[Pairs]:
    """Pairs of each image."""
    numbers = (weights.classes, weights.dice, weights.mask)
    found = []
    with torch.no_grad():
        for image, target in enumerate(targets):
            classes = None if classes_BNK is None else classes_BNK[image].float()
            masks = masks_BNhw[image].flatten(1).float()
            found.append(assign(match_cost(classes, masks, target.labels, target.masks.flatten(1), numbers)))
    return found


def _mask_losses(
    masks_BNhw: Tensor, targets: Sequence[SoftTargets], pairs: Sequence[Pairs], weights: Weights, count: Tensor
) -> dict[str, Tensor]:
    """Dice, and cross-entropy averaged over pixels, summed over pairs and divided by `count`."""
    found = torch.cat([masks_BNhw[image][queries] for image, (queries, _) in enumerate(pairs)]).flatten(1).float()
    wanted = torch.cat([t.masks[objects] for t, (_, objects) in zip(targets, pairs, strict=True)]).flatten(1)
    if not len(found):
        nothing = 0 * masks_BNhw.float().sum()  # every process needs a gradient for every parameter
        return {"mask": nothing, "dice": nothing}
    cross_entropy = F.binary_cross_entropy_with_logits(found, wanted, reduction="sum") / found.shape[1]
    return {
        "mask": weights.mask * cross_entropy / count,
        "dice": weights.dice * dice_loss(found, wanted).sum() / count,
    }


def _class_loss(classes_BNK: Tensor, targets: Sequence[SoftTargets], pairs: Sequence[Pairs], count: Tensor) -> Tensor:
    """Focal loss of all queries, over the number of those with an object; the others are background."""
    wanted = torch.zeros_like(classes_BNK, dtype=torch.float32)
    for image, (target, (queries, objects)) in enumerate(zip(targets, pairs, strict=True)):
        wanted[image, queries, target.labels[objects]] = 1
    return focal_loss(classes_BNK.float(), wanted).sum() / count


def _semantic_loss(semantic_BKhw: Tensor, targets: Sequence[SoftTargets], average: Average) -> Tensor:
    """Focal loss of the class at every pixel that an object touches; where they overlap, the later one counts."""
    wanted = torch.zeros_like(semantic_BKhw, dtype=torch.float32)
    count = wanted.new_zeros(())
    for image, target in enumerate(targets):
        if len(target.labels):
            inside_Mhw = target.masks > 0
            order = torch.arange(1, len(target.labels) + 1, device=wanted.device)
            last_hw = (inside_Mhw * order[:, None, None]).amax(0)
            labels_hw = torch.cat([target.labels[:1], target.labels])[last_hw]
            wanted[image].scatter_(0, labels_hw[None], (last_hw > 0).float()[None])
            count = count + (last_hw > 0).sum()
    return focal_loss(semantic_BKhw.float(), wanted).sum() / average(count)


def _upsample(map_BNhw: Tensor, size: tuple[int, int]) -> Tensor:
    if map_BNhw.shape[2:] == size:
        return map_BNhw
    return F.interpolate(map_BNhw, size, mode="bilinear", align_corners=False)
