"""From the levels' answers to instances (thesis, section 3.2.4).

Shape legend: B images, K classes, S cells along a side of a grid, N candidates, U cells among them, h w cells at
stride 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..detector import Found, Limits
from ..nms import suppress
from .head import Head, Level
from .options import Options

LEVEL_STRIDES = (8, 8, 16, 32, 32)  # a mask of a level has more cells than that


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Cells of one image with a class, best first: scores, labels, levels and cells [N]."""

    scores: Tensor
    labels: Tensor
    levels: Tensor
    cells: Tensor


def find_candidates(levels: Sequence[Level], image: int, options: Options) -> Candidates:
    """Cells whose class score is above `class_score`, at most `candidates` of them.

    They are chosen before any mask is made: memory does not grow with what a crowded image would offer.
    """
    scores, labels, numbers, cells = [], [], [], []
    for number, level in enumerate(levels):
        kept_KC = peaks(level.classes[image].float().sigmoid()).flatten(1)
        label, cell = (kept_KC > options.class_score).nonzero(as_tuple=True)
        scores.append(kept_KC[label, cell])
        labels.append(label)
        cells.append(cell)
        numbers.append(torch.full_like(cell, number))
    best = torch.cat(scores).sort(descending=True, stable=True)
    chosen = best.indices[: options.candidates]
    labels_N, numbers_N, cells_N = (torch.cat(one)[chosen] for one in (labels, numbers, cells))
    return Candidates(best.values[: options.candidates], labels_N, numbers_N, cells_N)


def peaks(scores_KSS: Tensor) -> Tensor:
    """Scores with zero where a cell is not the largest of itself, the one above, left, and above left."""
    largest = F.max_pool2d(scores_KSS, 2, stride=1, padding=1)[:, :-1, :-1]
    return scores_KSS * (largest == scores_KSS)


def find_instances(head: Head, levels: Sequence[Level], image: int, limits: Limits, size: tuple[int, int]) -> Found:
    """Instances of one image of the batch, with maps of `size`, that of stride 4.

    The score is the class's times maskness, the mean probability over the mask. Sources count the cells of all levels.
    """
    options = head.options
    candidates = find_candidates(levels, image, options)
    maps_Uhw, places_N = _maps(head, levels, image, candidates, size)
    inside_Uhw = maps_Uhw > options.mask_threshold
    area_U = inside_Uhw.sum((1, 2))
    maskness_U = torch.where(inside_Uhw, maps_Uhw, 0).sum((1, 2)) / area_U.clamp_min(1)
    least_N = area_U.new_tensor(LEVEL_STRIDES)[candidates.levels]
    kept = (area_U[places_N] > least_N).nonzero()[:, 0]
    scores_N, order = (candidates.scores * maskness_U[places_N])[kept].sort(descending=True, stable=True)
    kept = kept[order]
    scores_N = suppress(
        options.nms,
        inside_Uhw[places_N[kept]].flatten(1).float()[None],
        scores_N[None],
        candidates.labels[kept][None],
        kernel=options.nms_kernel,
        gaussian_coeff=options.gaussian_coeff,
        iou_threshold=options.nms_iou,
    )[0]
    scores_N, order = scores_N.sort(descending=True, stable=True)
    wanted = (scores_N > 0) & (scores_N >= max(options.min_score, limits.min_score))
    order = order[wanted][: limits.most]
    kept = kept[order]
    starts = torch.tensor([0, *(grid * grid for grid in options.grids)], device=kept.device).cumsum(0)
    return Found(
        maps=maps_Uhw[places_N[kept]],
        scores=scores_N[wanted][: limits.most],
        labels=candidates.labels[kept],
        sources=starts[candidates.levels[kept]] + candidates.cells[kept],
    )


def _maps(
    head: Head, levels: Sequence[Level], image: int, candidates: Candidates, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Soft masks [U, *size] of the cells that occur, and which of them each candidate has [N]."""
    places_N = torch.empty_like(candidates.cells)
    maps = [candidates.scores.new_zeros((0, *size))]
    count = 0
    for number, level in enumerate(levels):
        here = (candidates.levels == number).nonzero()[:, 0]
        if not len(here):
            continue
        cells, inverse = candidates.cells[here].unique(return_inverse=True)  # type: ignore[no-untyped-call]
        places_N[here] = count + inverse
        maps.append(head.soft(level, number, image, cells, size).float())
        count += len(cells)
    return torch.cat(maps), places_N
