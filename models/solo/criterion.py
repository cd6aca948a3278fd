"""The losses of the family: focal loss of classes; of masks Dice, cross-entropy or focal loss (thesis, Eq. 3.1-3.4).

Shape legend: B images, M objects of an image, K classes, S cells along a side of a grid, P pairs of cell and object,
h w cells of a mask.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..detector import Average, Targets
from ..losses import dice_distance, focal_loss
from .head import Head, Level
from .options import Options
from .targets import Cells, assign_cells, contours, find_places, shrink, shrink_lines

MASK_WEIGHTS = {"dice": 3.0, "bce": 10.0, "focal": 20.0}  # of the comparison of losses (thesis, section 3.3.3)
POSITIVE_WEIGHT = 2.0  # of a mask's own pixels in the cross-entropy
CHUNK = 256  # masks whose maps are held at once; those of more are computed twice

MaskLoss = Callable[[Tensor, Tensor], Tensor]  # logits [P, h, w], targets [P, h, w] -> [P]


@dataclass(frozen=True, slots=True, eq=False)
class Assigned:
    """What one level of one image learns."""

    number: int
    image: int
    cells: Cells


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Images that went through the head together, on one padded size (height, width)."""

    levels: Sequence[Level]
    targets: Sequence[Targets]
    size: tuple[int, int]


def assign(targets: Sequence[Targets], options: Options, size: tuple[int, int]) -> list[Assigned]:
    """Targets of all levels of all images of a batch, whose padded size is given; image by image."""
    found = []
    for image, target in enumerate(targets):
        places = find_places(target.masks, target.boxes, target.has_mask)
        for number, (grid, scales) in enumerate(zip(options.grids, options.scales, strict=True)):
            cells = assign_cells(places, grid, scales, size, center=options.center, collision=options.collision)
            found.append(Assigned(number, image, cells))
    return found


def solo_losses(
    head: Head,
    levels: Sequence[Level],
    targets: Sequence[Targets],
    size: tuple[int, int],
    average: Average,
) -> dict[str, Tensor]:
    """`joint_losses` of a batch whose padded size is (height, width)."""
    return joint_losses(head, [Part(levels, targets, size)], average)


def joint_losses(head: Head, parts: Sequence[Part], average: Average) -> dict[str, Tensor]:
    """Weighted losses "class" and "mask" of a batch that went through the head in parts.

    Both are divided by the number of cells with an object, in all levels and images; the classes by one more. An
    object's weight is that of its cells' losses. Cells of objects without a mask (`Targets.has_mask`) learn the class
    alone, and do not count for the masks.
    """
    device = parts[0].levels[0].classes.device
    count, masked = (torch.zeros((), device=device) for _ in range(2))
    classes, masks = (torch.zeros((), device=device) for _ in range(2))
    for part in parts:
        assigned = assign(part.targets, head.options, part.size)
        known = [with_masks(one, part.targets[one.image]) for one in assigned]
        count, masked = count + count_cells(assigned, device), masked + count_cells(known, device)
        classes = classes + class_loss(part.levels, part.targets, assigned)
        masks = masks + mask_loss(head, part.levels, part.targets, known, part.size)
    cells = average(one_more(count, average))
    return {"class": head.options.class_weight * classes / cells, "mask": masks / average(masked)}


def one_more(count: Tensor, average: Average) -> Tensor:
    """A count whose sum over all processes is one larger: `average` has one at least in all of them."""
    return count + average(torch.zeros_like(count))


def count_cells(assigned: Sequence[Assigned], device: torch.device) -> Tensor:
    """Cells that have an object, in all levels and images."""
    positive = sum((one.cells.owners >= 0).sum() for one in assigned)
    return torch.as_tensor(positive, device=device).float()


def with_masks(one: Assigned, target: Targets) -> Assigned:
    """The same without cells of objects whose mask is not known."""
    if target.has_mask is None:
        return one
    cells, known = one.cells, torch.cat([target.has_mask, target.has_mask.new_zeros(1)])
    owners = torch.where(known[cells.owners], cells.owners, -1)  # -1 is the last, which is not known
    kept = known[cells.objects]
    return replace(one, cells=Cells(owners, cells.cells[kept], cells.objects[kept]))


def class_loss(levels: Sequence[Level], targets: Sequence[Targets], assigned: Sequence[Assigned]) -> Tensor:
    """Focal loss of all cells, summed."""
    total = levels[0].classes.new_zeros((), dtype=torch.float32)
    for one in assigned:
        logits_KC = levels[one.number].classes[one.image].flatten(1).float()
        positive = (one.cells.owners >= 0).nonzero()[:, 0]
        owners = one.cells.owners[positive]
        target = targets[one.image]
        wanted_KC, weights_C = torch.zeros_like(logits_KC), torch.ones_like(logits_KC[0])
        wanted_KC[target.labels[owners], positive] = 1
        weights_C[positive] = target.weights[owners].float()
        total = total + (focal_loss(logits_KC, wanted_KC) * weights_C).sum()
    return total


def mask_loss(
    head: Head,
    levels: Sequence[Level],
    targets: Sequence[Targets],
    assigned: Sequence[Assigned],
    size: tuple[int, int],
) -> Tensor:
    """Weighted losses of the masks of all pairs, summed."""
    options = head.options
    # every process needs a gradient for every parameter, also where no cell has an object
    total = 0 * torch.stack([p.float().sum() for p in head.parameters() if p.requires_grad]).sum()
    shrunk: dict[tuple[int, int], Tensor] = {}
    for one in assigned:
        if not len(one.cells.cells):
            continue
        level, target = levels[one.number], targets[one.image]
        stride = size[0] // level.size[0]
        if (one.image, stride) not in shrunk:
            shrunk[one.image, stride] = mask_targets(target.masks, stride, outlines=options.contours)
        for cells, objects in chunks(one.cells):
            pairs = (head, level, one, cells, shrunk[one.image, stride][objects])
            few = len(one.cells.cells) <= CHUNK
            losses_P = pair_losses(*pairs) if few else checkpoint(pair_losses, *pairs, use_reentrant=False)
            total = total + (losses_P * target.weights[objects].float()).sum()
    weight = MASK_WEIGHTS[options.mask_loss] if options.mask_weight is None else options.mask_weight
    return weight * total


def pair_losses(head: Head, level: Level, one: Assigned, cells: Tensor, wanted_Phw: Tensor) -> Tensor:
    """The loss of each mask [P] of some cells."""
    logits_Phw = head.logits(level, one.number, one.image, cells).float()
    return MASK_LOSSES[head.options.mask_loss](logits_Phw, wanted_Phw.float())


def mask_targets(masks_MHW: Tensor, stride: int, *, outlines: bool) -> Tensor:
    """What masks at a stride learn, 0/1 [M, h, w]: objects, or their outlines."""
    if outlines:
        return shrink_lines(contours(masks_MHW), stride)
    return shrink(masks_MHW, stride)


def dice(logits_Phw: Tensor, wanted_Phw: Tensor) -> Tensor:
    """`losses.dice_loss` of each mask (thesis, Eq. 3.4)."""
    return dice_distance(logits_Phw.flatten(1).sigmoid(), wanted_Phw.flatten(1))


def cross_entropy(logits_Phw: Tensor, wanted_Phw: Tensor) -> Tensor:
    """Mean over pixels, those of the object counting twice."""
    weights = 1 + (POSITIVE_WEIGHT - 1) * wanted_Phw
    loss = F.binary_cross_entropy_with_logits(logits_Phw, wanted_Phw, weights, reduction="none")
    return loss.flatten(1).mean(1)


def focal(logits_Phw: Tensor, wanted_Phw: Tensor) -> Tensor:
    """Mean over pixels."""
    return focal_loss(logits_Phw, wanted_Phw).flatten(1).mean(1)


MASK_LOSSES: dict[str, MaskLoss] = {"dice": dice, "bce": cross_entropy, "focal": focal}


def chunks(cells: Cells) -> Iterator[tuple[Tensor, Tensor]]:
    """The pairs of cells and objects, `CHUNK` at a time."""
    for start in range(0, len(cells.cells), CHUNK):
        yield cells.cells[start : start + CHUNK], cells.objects[start : start + CHUNK]
