"""Prompts: pooling them from boxes, and assigning one to every query (Saliency Prompt Eq. 5-8, Table 5).

Shape legend: B images, N queries, L prompts (padded; `valid_BL` marks real ones), C channels, H W cells.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Assigner = Callable[[Tensor, Tensor, Tensor], Tensor]


def pad_boxes(boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
    """XYXY boxes of each image [L_i, 4] as [B, L, 4] and which are real [B, L]; L is the most, at least 1."""
    longest = max(1, *(len(one) for one in boxes))
    padded = torch.stack([F.pad(one, (0, 0, 0, longest - len(one))) for one in boxes])
    counts = torch.tensor([len(one) for one in boxes], device=padded.device)
    return padded, torch.arange(longest, device=padded.device) < counts[:, None]


def pool_prompts(map_BCHW: Tensor, boxes_BL4: Tensor, stride: int) -> Tensor:
    """Mean of the map inside each XYXY box in pixels of the batch: [B, L, C], detached.

    A box takes every cell that it touches, and at least one.
    """
    height, width = map_BCHW.shape[2:]
    x1, y1, x2, y2 = (boxes_BL4 / stride).unbind(-1)
    left, top = x1.floor().clamp(0, width - 1), y1.floor().clamp(0, height - 1)
    right = torch.maximum(x2.ceil().clamp(max=width), left + 1)
    bottom = torch.maximum(y2.ceil().clamp(max=height), top + 1)
    column, row = torch.arange(width, device=left.device), torch.arange(height, device=left.device)
    in_x_BLW = ((column >= left[..., None]) & (column < right[..., None])).to(map_BCHW.dtype)
    in_y_BLH = ((row >= top[..., None]) & (row < bottom[..., None])).to(map_BCHW.dtype)
    sums_BLC = torch.einsum("bchw,blh,blw->blc", map_BCHW.detach(), in_y_BLH, in_x_BLW)
    return sums_BLC / (in_y_BLH.sum(-1) * in_x_BLW.sum(-1))[..., None]


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
    assigner: Assigner, queries_BNC: Tensor, prompts_BLC: Tensor, valid_BL: Tensor, dropout: float
) -> Tensor:
    """What Saliency Prompt adds to every query: [B, N, C] (Eq. 8). Zero for images without a prompt.

    A query goes without its prompt with probability `dropout`. Assignment sends no gradient anywhere.
    """
    prompts_BLC = prompts_BLC * valid_BL[..., None]
    with torch.no_grad():
        index_BN = assigner(queries_BNC.detach(), prompts_BLC, valid_BL)
    shift_BNC = prompts_BLC.gather(1, index_BN[..., None].expand(-1, -1, prompts_BLC.shape[2]))
    if dropout:
        shift_BNC = shift_BNC * (torch.rand(index_BN.shape, device=shift_BNC.device) >= dropout)[..., None]
    return shift_BNC
