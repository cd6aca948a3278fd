"""All losses of a batch: initial masks, semantic map, classes and masks of every stage, kernels.

Shape legend: B images, N queries, M objects of an image, K classes, C channels, h w cells at stride 4.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.instances.host import Initial, Stage
from ...models.losses import dice_loss, focal_loss
from ...models.matching import assign, match_cost

Pairs = tuple[Tensor, Tensor]  # of queries and objects, as `assign` gives them
TARGET_STRIDE = 4


@dataclass(frozen=True, slots=True)
class Weights:
    """Of the losses; those of class, Dice and mask weigh the matching as well."""

    classes: float = 2.0
    dice: float = 4.0
    mask: float = 1.0
    semantic: float = 1.0
    kernel: float = 1.0


@dataclass(frozen=True, slots=True)
class Targets:
    """Objects of one image: soft masks [M, h, w] in 0..1, labels [M]."""

    masks: Tensor
    labels: Tensor


def shrink_masks(masks_MHW: Tensor) -> Tensor:
    """Masks of the padded image at stride 4, bilinear and left soft, as the losses compare them: [M, h, w]."""
    size = (masks_MHW.shape[1] // TARGET_STRIDE, masks_MHW.shape[2] // TARGET_STRIDE)
    if not len(masks_MHW):
        return masks_MHW.new_zeros((0, *size), dtype=torch.float32)
    return F.interpolate(masks_MHW[None].float(), size, mode="bilinear", align_corners=False)[0]


def instance_losses(
    initial: Initial,
    stages: Sequence[Stage],
    targets: Sequence[Targets],
    weights: Weights,
    *,
    matches_before: bool = True,
    seeds: Tensor | None = None,
    average: Callable[[Tensor], Tensor] = lambda count: count.clamp_min(1),
) -> tuple[dict[str, Tensor], list[list[Pairs]]]:
    """Weighted losses by name, and the pairs of every stage by image.

    `seeds` [sum of M, C], of all images' objects in order, supervise the matched queries (Saliency Prompt Eq. 9).
    `average` takes a count to its mean over all processes, but at least one in all of them: with it, gradients that
    are averaged over processes are those of one process with the whole batch.
    """
    height, width = targets[0].masks.shape[1:]
    before = _upsample(initial.masks, (height, width))
    pairs = _match(None, before, targets, weights)
    count = average(before.new_tensor(float(sum(len(queries) for queries, _ in pairs)), dtype=torch.float32))
    losses = {f"initial_{name}": value for name, value in _mask_losses(before, targets, pairs, weights, count).items()}
    if initial.semantic is not None:
        semantic = _upsample(initial.semantic, (height, width))
        losses["semantic"] = weights.semantic * _semantic_loss(semantic, targets, average)
    matched: list[list[Pairs]] = []
    for number, stage in enumerate(stages, start=1):
        masks = _upsample(stage.masks, (height, width))
        if not matches_before:
            pairs = _match(stage.classes, masks, targets, weights)
        matched.append(pairs)
        losses[f"class_{number}"] = weights.classes * _class_loss(stage.classes, targets, pairs, count)
        for name, value in _mask_losses(masks, targets, pairs, weights, count).items():
            losses[f"{name}_{number}"] = value
        if seeds is not None:
            losses[f"kernel_{number}"] = weights.kernel * _kernel_loss(stage.queries, seeds, targets, pairs, count)
        if matches_before and number < len(stages):
            pairs = _match(stage.classes, masks, targets, weights)
    return losses, matched


def _match(classes_BNK: Tensor | None, masks_BNhw: Tensor, targets: Sequence[Targets], weights: Weights) -> list[Pairs]:
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
    masks_BNhw: Tensor, targets: Sequence[Targets], pairs: Sequence[Pairs], weights: Weights, count: Tensor
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


def _class_loss(classes_BNK: Tensor, targets: Sequence[Targets], pairs: Sequence[Pairs], count: Tensor) -> Tensor:
    """Focal loss of all queries, over the number of those with an object; the others are background."""
    wanted = torch.zeros_like(classes_BNK, dtype=torch.float32)
    for image, (target, (queries, objects)) in enumerate(zip(targets, pairs, strict=True)):
        wanted[image, queries, target.labels[objects]] = 1
    return focal_loss(classes_BNK.float(), wanted).sum() / count


def _semantic_loss(semantic_BKhw: Tensor, targets: Sequence[Targets], average: Callable[[Tensor], Tensor]) -> Tensor:
    """Focal loss of the class at every pixel; where objects overlap, the later one counts."""
    wanted = torch.zeros_like(semantic_BKhw, dtype=torch.float32)
    count = wanted.new_zeros(())
    for image, target in enumerate(targets):
        if len(target.labels):
            inside_Mhw = target.masks > 0.5
            order = torch.arange(1, len(target.labels) + 1, device=wanted.device)
            last_hw = (inside_Mhw * order[:, None, None]).amax(0)
            labels_hw = torch.cat([target.labels[:1], target.labels])[last_hw]
            wanted[image].scatter_(0, labels_hw[None], (last_hw > 0).float()[None])
            count = count + (last_hw > 0).sum()
    return focal_loss(semantic_BKhw.float(), wanted).sum() / average(count)


def _kernel_loss(
    queries_BNC: Tensor, seeds: Tensor, targets: Sequence[Targets], pairs: Sequence[Pairs], count: Tensor
) -> Tensor:
    """1 - cosine of matched queries and their object's seed, summed over pairs and divided by `count`."""
    found = torch.cat([queries_BNC[image][queries] for image, (queries, _) in enumerate(pairs)]).float()
    starts = [0]
    for target in targets:
        starts.append(starts[-1] + len(target.labels))
    places = torch.cat([objects + start for (_, objects), start in zip(pairs, starts[:-1], strict=True)])
    if not len(found):
        return 0 * (queries_BNC.float().sum() + seeds.float().sum())
    return (1 - F.cosine_similarity(found, seeds[places].float(), dim=1)).sum() / count


def _upsample(map_BNhw: Tensor, size: tuple[int, int]) -> Tensor:
    if map_BNhw.shape[2:] == size:
        return map_BNhw
    return F.interpolate(map_BNhw, size, mode="bilinear", align_corners=False)
