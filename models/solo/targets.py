"""Which cells of which grid learn which object (thesis, chapter 3; numbers of the authors' code).

Shape legend: M objects, H W pixels of the padded image, S cells along a side of a grid, P pairs of cell and object,
h w cells of a mask.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Collision = Literal["smallest", "last", "all"]


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """What of an object its cells follow from: centre of mass (y, x) [M, 2], area [M] in pixels, box XYXY [M, 4]."""

    centers: Tensor
    areas: Tensor
    boxes: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """The targets of one grid.

    owners int64 [S * S], row by row: the object whose class a cell learns, -1 for none. cells, objects int64 [P]: the
    cells that learn a mask, and whose.
    """

    owners: Tensor
    cells: Tensor
    objects: Tensor


def find_places(masks_MHW: Tensor, boxes_M4: Tensor, has_mask_M: Tensor | None = None) -> Places:
    """Centres of mass, in indices of pixels; (0, 0) for a mask without pixels.

    An object whose mask may not be learned from is placed as if it filled its box.
    """
    rows_MH = masks_MHW.sum(2, dtype=torch.int64)
    columns_MW = masks_MHW.sum(1, dtype=torch.int64)
    areas_M = rows_MH.sum(1)
    y_M, x_M = ((one * torch.arange(one.shape[1], device=one.device)).sum(1) for one in (rows_MH, columns_MW))
    centers_M2 = torch.stack([y_M, x_M], 1).double() / areas_M.clamp_min(1)[:, None]
    boxes_M4 = boxes_M4.double()
    if has_mask_M is not None:
        ends_M2, starts_M2 = boxes_M4[:, 2:].flip(1), boxes_M4[:, :2].flip(1)
        centers_M2 = torch.where(has_mask_M[:, None], centers_M2, (starts_M2 + ends_M2 - 1) / 2)
        filled_M = (ends_M2 - starts_M2).clamp_min(0).prod(1).round().to(areas_M.dtype)
        areas_M = torch.where(has_mask_M, areas_M, filled_M)
    return Places(centers_M2, areas_M, boxes_M4)


def assign_cells(
    places: Places,
    grid: int,
    scales: tuple[float, float],
    size: tuple[int, int],
    *,
    center: float = 0.2,
    collision: Collision = "smallest",
) -> Cells:
    """Cells of a grid of S x S over an image of `size` that learn the objects of `scales`, both ends included.

    The scale of an object is the root of its box's area. Its cells are those that its centre region touches: the box
    scaled by `center` around the centre of mass; of them the 3 x 3 around the centre's cell at most. Objects without
    pixels have none.

    Where objects share a cell, `smallest` gives it to the one of least area (of equals, the first); `last` to the last
    in order, as SOLO's code; `all` the class to the last and the masks of all, as SOLOv2's code.
    """
    device, count = places.areas.device, len(places.areas)
    extent_2 = torch.tensor(size, dtype=torch.float64, device=device)
    widths_M2 = (places.boxes[:, 2:] - places.boxes[:, :2]).clamp_min(0).flip(1)  # (y, x), as the centres
    scale_M = widths_M2.prod(1).sqrt()
    chosen_M = (scale_M >= scales[0]) & (scale_M <= scales[1]) & (places.areas > 0)
    middle_M2, first_M2, last_M2 = (
        (edge / extent_2 * grid).floor().long()
        for edge in (
            places.centers,
            places.centers - widths_M2 * center / 2,
            places.centers + widths_M2 * center / 2,
        )
    )
    steps = torch.arange(-1, 2, device=device)
    cell_M92 = middle_M2[:, None] + torch.cartesian_prod(steps, steps)
    touched = (cell_M92 >= first_M2.clamp_min(0)[:, None]) & (cell_M92 <= last_M2.clamp_max(grid - 1)[:, None])
    objects, which = (touched.all(2) & chosen_M[:, None]).nonzero(as_tuple=True)
    cells = cell_M92[objects, which] @ torch.tensor([grid, 1], device=device)

    # the object of the lowest rank wins a cell: a minimum is the same in any order, on any device
    if collision == "smallest":
        order_M = places.areas.argsort(stable=True)
    else:
        order_M = torch.arange(count - 1, -1, -1, device=device)
    rank_M = torch.empty_like(order_M).scatter_(0, order_M, torch.arange(count, device=device))
    best = torch.full((grid * grid,), count, device=device).scatter_reduce_(0, cells, rank_M[objects], "amin")
    owners = torch.cat([order_M, order_M.new_tensor([-1])])[best]
    if collision != "all":
        cells = (owners >= 0).nonzero()[:, 0]
        objects = owners[cells]
    return Cells(owners, cells, objects)


def shrink(masks_MHW: Tensor, stride: int) -> Tensor:
    """Masks at an even stride, 0/1 [M, H / stride, W / stride]: the mean of each cell's middle 2 x 2 pixels, rounded.

    That is bilinear resizing, with a half rounded up.
    """
    half = stride // 2
    rows = masks_MHW[:, half - 1 :: stride] + masks_MHW[:, half::stride]
    return (rows[:, :, half - 1 :: stride] + rows[:, :, half::stride] >= 2).to(masks_MHW.dtype)


def shrink_lines(masks_MHW: Tensor, stride: int) -> Tensor:
    """Masks at a stride that keep every line: a cell is set if one of its pixels is."""
    count, height, width = masks_MHW.shape
    return masks_MHW.view(count, height // stride, stride, width // stride, stride).amax((2, 4))


def contours(masks_MHW: Tensor) -> Tensor:
    """Outlines of masks, three pixels wide: the mask without its 3 x 3 erosion, dilated by one pixel (uint8).

    The border of the image is no outline.
    """
    edge = masks_MHW & ~_least(masks_MHW) & 1
    return 1 - _least(1 - edge)


def _least(masks_MHW: Tensor) -> Tensor:
    """The minimum over each pixel's 3 x 3 neighbours within the image."""
    for dim in (1, 2):
        before, after = (
            masks_MHW.narrow(dim, 0, masks_MHW.shape[dim] - 1),
            masks_MHW.narrow(dim, 1, masks_MHW.shape[dim] - 1),
        )
        least = masks_MHW.clone()
        down, up = least.narrow(dim, 1, least.shape[dim] - 1), least.narrow(dim, 0, least.shape[dim] - 1)
        down.copy_(torch.minimum(down, before))
        up.copy_(torch.minimum(up, after))
        masks_MHW = least
    return masks_MHW
