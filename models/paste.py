"""Soft masks of boxes, put where their boxes are.

Shape legend: n masks, h w cells of a mask, H W pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def paste_masks(maps_nhw: Tensor, boxes_n4: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear values at every pixel's centre, zero outside the XYXY boxes: [n, H, W].

    Boxes may reach over the edges, and what lies outside is not seen.
    """
    height, width = size
    x1, y1, x2, y2 = boxes_n4.float()[:, :, None].unbind(1)  # each [n, 1]
    y = (torch.arange(height, device=maps_nhw.device) + 0.5 - y1) / (y2 - y1).clamp_min(1e-6) * 2 - 1
    x = (torch.arange(width, device=maps_nhw.device) + 0.5 - x1) / (x2 - x1).clamp_min(1e-6) * 2 - 1
    n = len(maps_nhw)
    grid_nHW2 = torch.stack([x[:, None].expand(n, height, width), y[:, :, None].expand(n, height, width)], dim=3)
    return F.grid_sample(maps_nhw[:, None].float(), grid_nHW2, align_corners=False)[:, 0]
