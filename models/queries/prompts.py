"""Prompts: pooling them from boxes, and assigning one to every query (Saliency Prompt Eq. 5-8, Table 5).

Shape legend: B images, N queries, L prompts (padded; `valid_BL` marks real ones), C channels, H W cells.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Assigner = Callable[[Tensor, Tensor, Tensor], Tensor]
Cells = Literal["touched", "floor"]


def pad_boxes(boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
    """XYXY boxes of each image [L_i, 4] as [B, L, 4] and which are real [B, L]; L is the most, at least 1."""
    longest = max(1, *(len(one) for one in boxes))
    padded = torch.stack([F.pad(one, (0, 0, 0, longest - len(one))) for one in boxes])
    counts = torch.tensor([len(one) for one in boxes], device=padded.device)
    return padded, torch.arange(longest, device=padded.device) < counts[:, None]


def pool_prompts(map_BCHW: Tensor, boxes_BL4: Tensor, stride: int, cells: Cells = "touched") -> Tensor:
    """Mean of the map inside each XYXY box in pixels of the batch: [B, L, C], detached (Eq. 5).

    A box takes every cell that it touches, and at least one; or, with `floor` as in the paper's code, all corners are
    rounded down, and a box without extent takes two cells.
    """
    height, width = map_BCHW.shape[2:]
    left, top, right, bottom = (boxes_BL4 / stride).unbind(-1)
    left, right = _cells(left, right, width, cells)
    top, bottom = _cells(top, bottom, height, cells)
    column, row = torch.arange(width, device=left.device), torch.arange(height, device=left.device)
    in_x_BLW = ((column >= left[..., None]) & (column < right[..., None])).to(map_BCHW.dtype)
    in_y_BLH = ((row >= top[..., None]) & (row < bottom[..., None])).to(map_BCHW.dtype)
    sums_BLC = torch.einsum("bchw,blh,blw->blc", map_BCHW.detach(), in_y_BLH, in_x_BLW)
    return sums_BLC / (in_y_BLH.sum(-1) * in_x_BLW.sum(-1))[..., None]


def _cells(low: Tensor, high: Tensor, count: int, cells: Cells) -> tuple[Tensor, Tensor]:
    first = low.floor().clamp(0, count - 1)
    if cells == "floor":
        last = high.floor().clamp(max=count)
        return first, torch.where(last <= first, first + 2, last)
    return first, torch.maximum(high.ceil().clamp(max=count), first + 1)


def pool_masked(map_BCHW: Tensor, masks: Sequence[Tensor], stride: int) -> Tensor:
    """Mean of the map under each mask [M, H, W] of the padded images: [B, L, C], detached.

    A cell counts by the share of it that the mask covers. L is the most objects of an image, at least 1; zero where
    there is none.
    """
    longest = max(1, *(len(one) for one in masks))
    pooled = map_BCHW.new_zeros(len(masks), longest, map_BCHW.shape[1])
    for image, one in enumerate(masks):
        share_MHW = F.avg_pool2d(one.to(map_BCHW.dtype)[:, None], stride)[:, 0]
        sums_MC = torch.einsum("chw,mhw->mc", map_BCHW[image].detach(), share_MHW)
        pooled[image, : len(one)] = sums_MC / share_MHW.sum((1, 2)).clamp_min(1e-6)[:, None]
    return pooled


def box_levels(boxes_BL4: Tensor, strides: Sequence[int]) -> Tensor:
    """Which of the maps each box is read from, by its size: index [B, L] (Lin et al., FPN, Eq. 1).

    A box of 224 pixels belongs to stride 16, one of half that to stride 8; strides double from map to map.
    """
    sides = (boxes_BL4[..., 2:] - boxes_BL4[..., :2]).clamp_min(1e-6).prod(-1).sqrt()
    level = (4 + (sides / 224).log2() + 1e-6).floor() - math.log2(strides[0])
    return level.clamp(0, len(strides) - 1).long()


def choose_levels(pooled: Sequence[Tensor], levels_BL: Tensor) -> Tensor:
    """Of the same prompts [B, L, C] from each map, those of each one's level."""
    index = levels_BL[None, ..., None].expand(1, *pooled[0].shape)
    return torch.stack(list(pooled)).gather(0, index)[0]


def assign_cosine(queries_BNC: Tensor, prompts_BLC: Tensor, valid_BL: Tensor) -> Tensor:
    """The prompt of largest cosine for every query: index [B, N] (Eq. 6-7)."""
    cosine_BNL = F.normalize(queries_BNC, dim=-1) @ F.normalize(prompts_BLC, dim=-1).transpose(1, 2)
    return cosine_BNL.masked_fill(~valid_BL[:, None], -torch.inf).argmax(-1)


def assign_sequential(queries_BNC: Tensor, prompts_BLC: Tensor, valid_BL: Tensor) -> Tensor:
    """Prompts in order, each for equally many queries in a row: floor(n L / N)."""
    del prompts_BLC
    n = torch.arange(queries_BNC.shape[1], device=valid_BL.device)
    return n[None] * valid_BL.sum(1, keepdim=True) // queries_BNC.shape[1]


def assign_random(queries_BNC: Tensor, prompts_BLC: Tensor, valid_BL: Tensor) -> Tensor:
    """The sequential layout under a fresh permutation of the queries, drawn from torch's generator."""
    order_BN = torch.rand(queries_BNC.shape[:2], device=valid_BL.device).argsort(1)
    return assign_sequential(queries_BNC, prompts_BLC, valid_BL).gather(1, order_BN)


ASSIGNERS: dict[str, Assigner] = {
    "cosine": assign_cosine,
    "sequential": assign_sequential,
    "random": assign_random,
}


def prompt_shift(
    assigner: Assigner,
    queries_BNC: Tensor,
    prompts_BLC: Tensor,
    valid_BL: Tensor,
    dropout: float,
    match_BNC: Tensor | None = None,
) -> Tensor:
    """What Saliency Prompt adds to every query: [B, N, C] (Eq. 8). Zero for images without a prompt.

    A query goes without its prompt with probability `dropout`. Assignment sends no gradient anywhere. Given
    `match_BNC`, each prompt gets the length of the query there.
    """
    prompts_BLC = prompts_BLC * valid_BL[..., None]
    with torch.no_grad():
        index_BN = assigner(queries_BNC.detach(), prompts_BLC, valid_BL)
    shift_BNC = prompts_BLC.gather(1, index_BN[..., None].expand(-1, -1, prompts_BLC.shape[2]))
    if match_BNC is not None:
        shift_BNC = F.normalize(shift_BNC, dim=2) * match_BNC.detach().norm(dim=2, keepdim=True)
    if dropout:
        shift_BNC = shift_BNC * (torch.rand(index_BN.shape, device=shift_BNC.device) >= dropout)[..., None]
    return shift_BNC


@torch.no_grad()
def prompt_ratio(shift_BNC: Tensor, queries_BNC: Tensor) -> Tensor:
    """How long prompts are against the queries they are added to: the median over queries that have one, else 0."""
    lengths = shift_BNC.float().norm(dim=2)
    ratio = (lengths / queries_BNC.float().norm(dim=2).clamp_min(1e-12))[lengths > 0]
    middle: Tensor = ratio.median() if len(ratio) else lengths.new_zeros(())
    return middle
