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

ROWS = 16  # masks that are worked on at once: so many stay in a processor's cache
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
    maps, rows_N = _maps(head, levels, image, candidates, size)
    with torch.autocast(maps[0].device.type, enabled=False):  # counts of pixels do not fit into 16 bits
        inside, totals, areas = zip(*(measure(one, options.mask_threshold) for one in maps), strict=True)
        area_N = _gather(areas, candidates.levels, rows_N)
        maskness_N = _gather(totals, candidates.levels, rows_N) / area_N.clamp_min(1)
        kept = (area_N > area_N.new_tensor(LEVEL_STRIDES)[candidates.levels]).nonzero()[:, 0]
        scores_N, order = (candidates.scores * maskness_N)[kept].sort(descending=True, stable=True)
        kept = kept[order]
        scores_N = suppress(
            options.nms,
            _gather(inside, candidates.levels[kept], rows_N[kept]).flatten(1)[None],
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
    vectors = [level.vectors[image].flatten(1).T for level in levels if level.vectors is not None]
    starts = torch.tensor([0, *(grid * grid for grid in options.grids)], device=kept.device).cumsum(0)
    return Found(
        maps=_gather(maps, candidates.levels[kept], rows_N[kept]),
        scores=scores_N[wanted][: limits.most],
        labels=candidates.labels[kept],
        sources=starts[candidates.levels[kept]] + candidates.cells[kept],
        vectors=_gather(vectors, candidates.levels[kept], candidates.cells[kept]) if vectors else None,
    )


def _maps(
    head: Head, levels: Sequence[Level], image: int, candidates: Candidates, size: tuple[int, int]
) -> tuple[list[Tensor], Tensor]:
    """Soft masks [U, *size] of each level's cells that occur, and which of its level's each candidate has [N]."""
    rows_N = torch.empty_like(candidates.cells)
    maps = []
    for number, level in enumerate(levels):
        here = (candidates.levels == number).nonzero()[:, 0]
        cells, rows_N[here] = candidates.cells[here].unique(return_inverse=True)  # type: ignore[no-untyped-call]
        some = len(cells) > 0
        maps.append(head.soft(level, number, image, cells, size) if some else level.maps[0].new_zeros((0, *size)))
    return maps, rows_N


def measure(maps_Uhw: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Which cells of soft masks are above the threshold, bool [U, h, w]; the sum of these, and their number [U]."""
    inside_Uhw = torch.empty_like(maps_Uhw, dtype=torch.bool)
    totals, areas = [maps_Uhw.new_zeros(0, dtype=torch.float32)], [maps_Uhw.new_zeros(0, dtype=torch.float32)]
    for start in range(0, len(maps_Uhw), ROWS):
        some = maps_Uhw[start : start + ROWS].float()
        where = torch.gt(some, threshold, out=inside_Uhw[start : start + ROWS])
        totals.append((some * where).sum((1, 2)))
        areas.append(where.sum((1, 2)).float())
    return inside_Uhw, torch.cat(totals), torch.cat(areas)


def _gather(parts: Sequence[Tensor], levels_N: Tensor, rows_N: Tensor) -> Tensor:
    """Rows of the levels' parts [U, ...] that each of N has, in fp32: [N, ...]. Parts are large, and never joined."""
    found = parts[0].new_empty((len(levels_N), *parts[0].shape[1:]), dtype=torch.float32)
    for number, part in enumerate(parts):
        places = (levels_N == number).nonzero()[:, 0]
        for start in range(0, len(places), ROWS):
            here = places[start : start + ROWS]
            found[here] = part[rows_N[here]].float()
    return found
