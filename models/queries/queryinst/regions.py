"""Boxes, and what lies in them.

Shape legend: B images, R regions, N queries, C channels, S side of a region in cells; boxes are XYXY in pixels.
"""

import math

import torch
from torch import Tensor
from torchvision.ops import roi_align

from ..host import Pyramid

LEVELS = ("p2", "p3", "p4", "p5")
STRIDES = (4, 8, 16, 32)
FINEST = 56  # pixels: up to twice this side, boxes are read on the finest level
SAMPLES = 2  # a side, in each cell of a region
_LARGEST = 1e5  # pixels; a box that is no number, or larger, must not reach the sampling
_DEVIATIONS = (0.5, 0.5, 1.0, 1.0)  # of deltas (Sparse R-CNN)
_LARGEST_STEP = math.log(1000 / 16)


def roi_levels(boxes_R4: Tensor) -> Tensor:
    """The pyramid level of each box by its size: int64 [R] in 0..3."""
    sides = (boxes_R4[:, 2:] - boxes_R4[:, :2]).clamp_min(0).prod(1).sqrt()
    return (sides / FINEST + 1e-6).log2().floor().clamp(0, len(LEVELS) - 1).long()


def roi_features(pyramid: Pyramid, images_R: Tensor, boxes_R4: Tensor, side: int) -> Tensor:
    """RoIAlign of each box in its image, from the level of its size: fp32 [R, C, S, S]. No gradient to the boxes."""
    boxes_R4 = finite_boxes(boxes_R4)
    levels_R = roi_levels(boxes_R4)
    rois_R5 = torch.cat([images_R[:, None].to(boxes_R4.dtype), boxes_R4], dim=1)
    found = pyramid["p2"].new_zeros(len(boxes_R4), pyramid["p2"].shape[1], side, side, dtype=torch.float32)
    for level, (name, stride) in enumerate(zip(LEVELS, STRIDES, strict=True)):
        here = (levels_R == level).nonzero()[:, 0]
        # also without a box: every map is part of the graph
        part = roi_align(pyramid[name].float(), rois_R5[here], side, 1 / stride, SAMPLES, aligned=True)
        found = found.index_add(0, here, part)
    return found


def decode_boxes(boxes_BN4: Tensor, deltas_BN4: Tensor) -> Tensor:
    """Boxes moved by deltas (dx, dy, dw, dh), in units of their size and of log size: [B, N, 4]. Not clipped."""
    dx, dy, dw, dh = (deltas_BN4 * deltas_BN4.new_tensor(_DEVIATIONS)).unbind(-1)
    x1, y1, x2, y2 = boxes_BN4.unbind(-1)
    width, height = x2 - x1, y2 - y1
    x, y = (x1 + x2) / 2 + dx * width, (y1 + y2) / 2 + dy * height
    width = width * dw.clamp(-_LARGEST_STEP, _LARGEST_STEP).exp()
    height = height * dh.clamp(-_LARGEST_STEP, _LARGEST_STEP).exp()
    return torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], dim=-1)


def finite_boxes(boxes: Tensor) -> Tensor:
    """Detached, in fp32, and numbers that can be sampled at."""
    return boxes.detach().float().nan_to_num(0).clamp(-_LARGEST, _LARGEST)
