"""Losses and matching of every prediction, at points (Mask2Former, section 3.3 and appendix).

Shape legend: B images, N queries, M objects of an image, K classes, P points, h w cells at stride 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...detector import Average, Size, Targets
from ...matching import assign
from ..host import Initial, Pairs, Pyramid, Refined, refuse_boxes
from .points import Draw, sample, uncertain_points

NO_OBJECT = 0.1  # weight of the class "no object"


@dataclass(frozen=True, slots=True, eq=False)
class Mask2FormerInitial(Initial):
    """The prediction of queries that have seen nothing, as `Mask2FormerRefined`; what the layers look at; sizes."""

    classes: Tensor
    masks: Tensor
    pyramid: Pyramid
    sizes: Sequence[Size]


@dataclass(frozen=True, slots=True, eq=False)
class Mask2FormerRefined(Refined):
    """classes [B, N, K + 1] logits, the last of no object; masks [B, N, h, w] logits."""

    masks: Tensor


@dataclass(frozen=True, slots=True)
class Weights:
    """Of the losses and of the matching; and how many points stand for a mask."""

    classes: float = 2.0
    mask: float = 5.0
    dice: float = 5.0
    points: int = 112**2


def mask2former_losses(
    initial: Mask2FormerInitial,
    stages: Sequence[Mask2FormerRefined],
    targets: Sequence[Targets],
    weights: Weights,
    average: Average,
    draw: Draw,
) -> tuple[dict[str, Tensor], list[list[Pairs]]]:
    """Weighted losses by name, and the pairs of every layer by image. Each prediction is matched on itself."""
    refuse_boxes(targets)
    losses: dict[str, Tensor] = {}
    matched: list[list[Pairs]] = []
    count = average(initial.masks.new_tensor(float(sum(len(t.labels) for t in targets)), dtype=torch.float32))
    predictions = [(initial.classes, initial.masks), *((stage.classes, stage.masks) for stage in stages)]
    for number, (classes, masks) in enumerate(predictions):
        pairs = _match(classes, masks, targets, weights, draw)
        of_masks = _mask_losses(masks, targets, pairs, weights, count, draw)
        for name, value in {"class": _class_loss(classes, targets, pairs, weights, average), **of_masks}.items():
            losses[f"{name}_{number}" if number else f"initial_{name}"] = value
        matched.append(pairs)
    return losses, matched[1:]


def match_cost(classes_NK: Tensor, logits_NP: Tensor, labels_M: Tensor, targets_MP: Tensor, weights: Weights) -> Tensor:
    """Cost of every pair [N, M]: weights of class probability, mean cross-entropy and Dice at the same points."""
    points = logits_NP.shape[1]
    cross_entropy = (F.softplus(-logits_NP) @ targets_MP.T + F.softplus(logits_NP) @ (1 - targets_MP).T) / points
    p = logits_NP.sigmoid()
    dice = 1 - (2 * p @ targets_MP.T + 1) / (p.sum(1)[:, None] + targets_MP.sum(1) + 1)
    likely = classes_NK.softmax(-1)[:, labels_M]
    return weights.mask * cross_entropy + weights.dice * dice - weights.classes * likely


def dice_loss(logits_MP: Tensor, targets_MP: Tensor) -> Tensor:
    """1 - (2 sum(p t) + 1) / (sum p + sum t + 1): [M]."""
    p = logits_MP.sigmoid()
    return 1 - (2 * (p * targets_MP).sum(1) + 1) / (p.sum(1) + targets_MP.sum(1) + 1)


@torch.no_grad()
def _match(
    classes_BNK: Tensor, masks_BNhw: Tensor, targets: Sequence[Targets], weights: Weights, draw: Draw
) -> list[Pairs]:
    found = []
    for image, target in enumerate(targets):
        points_P2 = draw(1, weights.points, masks_BNhw.device)[0]
        logits = sample(masks_BNhw[image].float(), points_P2)
        wanted = sample(target.masks.float(), points_P2)
        cost = match_cost(classes_BNK[image].float(), logits, target.labels, wanted, weights)
        found.append(assign(cost))
    return found


def _class_loss(
    classes_BNK: Tensor, targets: Sequence[Targets], pairs: Sequence[Pairs], weights: Weights, average: Average
) -> Tensor:
    """Cross-entropy of all queries, a mean in which those without an object count less."""
    nothing = classes_BNK.shape[2] - 1
    wanted_BN = torch.full(classes_BNK.shape[:2], nothing, device=classes_BNK.device)
    for image, (target, (queries, objects)) in enumerate(zip(targets, pairs, strict=True)):
        wanted_BN[image, queries] = target.labels[objects]
    share_BN = torch.where(wanted_BN == nothing, NO_OBJECT, 1.0)
    cross_entropy = F.cross_entropy(classes_BNK.float().flatten(0, 1), wanted_BN.flatten(), reduction="none")
    total = average(share_BN.sum() / NO_OBJECT) * NO_OBJECT  # in units that are never below one
    return weights.classes * (cross_entropy * share_BN.flatten()).sum() / total


def _mask_losses(
    masks_BNhw: Tensor, targets: Sequence[Targets], pairs: Sequence[Pairs], weights: Weights, count: Tensor, draw: Draw
) -> dict[str, Tensor]:
    """Cross-entropy, a mean over points, and Dice; sums over pairs divided by `count`."""
    found = torch.cat([masks_BNhw[image][queries] for image, (queries, _) in enumerate(pairs)]).float()
    if not len(found):
        nothing = 0 * masks_BNhw.float().sum()  # every process needs a gradient for every parameter
        return {"mask": nothing, "dice": nothing}
    wanted = torch.cat([t.masks[objects] for t, (_, objects) in zip(targets, pairs, strict=True)])
    points = uncertain_points(found.detach(), weights.points, draw)
    logits, values = sample(found, points), sample(wanted.float(), points)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, values, reduction="none").mean(1)
    return {
        "mask": weights.mask * cross_entropy.sum() / count,
        "dice": weights.dice * dice_loss(logits, values).sum() / count,
    }
