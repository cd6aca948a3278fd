"""Grids and ranges of SOLO from the sizes and places of a data set's own objects.

The default grids suit COCO. On data of few large objects they have too many cells, on data of many small ones objects
share cells, and one of two is lost. Here every level gets an equal share of objects, and the fewest cells with which
hardly any of them meet.

Shape legend: M objects of an image, N objects of all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..schemas.errors import UserError

Floats = npt.NDArray[np.float64]
LEVELS = 5
OVERLAP = 2**0.5  # of neighbouring ranges, as a factor to each side
FINEST = (16, 16, 32, 64, 64)  # scales in pixels that a level's cells can still draw: two cells of its masks and more
GRIDS = (4, 6, 8, 12, 16, 20, 24, 28, 32, 36, 40, 48, 56, 64)
SHARED = 0.01  # share of a level's objects that may lose their cell
BARS = 40  # characters of the histogram's longest bar


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """The objects of one image: boxes XYXY [M, 4] in its pixels, and its (height, width) there."""

    boxes: Floats
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class GridFit:
    """What `fit_grid` found: for each level its grid, range, objects in range, and the share that loses its cell.

    edges, counts: the histogram of scales, in pixels of the resized image.
    """

    grids: tuple[int, ...]
    ranges: tuple[tuple[int, int], ...]
    objects: tuple[int, ...]
    lost: tuple[float, ...]
    edges: tuple[float, ...]
    counts: tuple[int, ...]

    def settings(self) -> str:
        """The values as `--set` takes them."""
        ranges = ",".join(f"[{low},{high}]" for low, high in self.ranges)
        return f"model.grids=[{','.join(map(str, self.grids))}] model.ranges=[{ranges}]"

    def histogram(self) -> str:
        """Scales and levels as lines of text."""
        most = max(self.counts)
        lines = [
            f"{low:7.0f} - {high:<7.0f} {count:8d} {'#' * round(BARS * count / most)}"
            for low, high, count in zip(self.edges, self.edges[1:], self.counts, strict=False)
        ]
        for grid, (low, high), objects, lost in zip(self.grids, self.ranges, self.objects, self.lost, strict=True):
            lines.append(f"grid {grid:3d}   scales {low} - {high}   {objects} objects, {100 * lost:.1f} % share a cell")
        return "\n".join(lines)


def fit_grid(images: Sequence[Boxes], *, short_side: int = 800, long_side: int = 1333) -> GridFit:
    """Grids and ranges for images whose shorter side is resized to `short_side`, their longer to `long_side` at most.

    Ranges are bounded by quantiles of the scales (roots of boxes' areas), no finer than a level's masks, and overlap.
    A grid is the smallest of `GRIDS` in which at most `SHARED` of the objects in range lie in the same cell as another
    of their image, or the one in which fewest do. Boxes without area do not count.

    Raises UserError if there are no objects.
    """
    scales, places, owners = _objects(images, short_side, long_side)
    if not len(scales):
        raise UserError("there is no object with an area: give annotations that have some.")
    ranges = _ranges(scales)
    fits = [_fit_level(scales, places, owners, span) for span in ranges]
    exponents = np.arange(np.floor(2 * np.log2(scales.min())), np.floor(2 * np.log2(scales.max())) + 2)
    edges = 2 ** (exponents / 2)  # half octaves
    counts = np.bincount(np.searchsorted(edges, scales, side="right") - 1, minlength=len(edges) - 1)[: len(edges) - 1]
    return GridFit(
        grids=tuple(grid for grid, _, _ in fits),
        ranges=ranges,
        objects=tuple(number for _, number, _ in fits),
        lost=tuple(lost for _, _, lost in fits),
        edges=tuple(edges.tolist()),
        counts=tuple(counts.tolist()),
    )


def lost_share(places_N2: Floats, owners_N: npt.NDArray[np.int64], grid: int) -> float:
    """Share of objects that would lose their centre's cell to another of their image: all but one in each cell.

    Places (y, x) are in 0..1 of the image.
    """
    if not len(places_N2):
        return 0.0
    row, column = np.minimum((places_N2 * grid).astype(np.int64), grid - 1).T
    cells = (owners_N * grid + row) * grid + column
    return 1 - len(np.unique(cells)) / len(cells)


def _objects(images: Sequence[Boxes], short_side: int, long_side: int) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Scales in pixels of the resized image [N], centres (y, x) in 0..1 [N, 2], and the image of each [N]."""
    scales, places, owners = [np.zeros(0)], [np.zeros((0, 2))], [np.zeros(0, np.int64)]
    for number, one in enumerate(images):
        factor = min(short_side / min(one.size), long_side / max(one.size))
        boxes = np.asarray(one.boxes, np.float64).reshape(-1, 4)
        sides = (boxes[:, 2:] - boxes[:, :2]).clip(0)
        kept = sides.prod(1) > 0
        scales.append(factor * np.sqrt(sides[kept].prod(1)))
        places.append(((boxes[kept, :2] + boxes[kept, 2:]) / 2)[:, ::-1] / np.array(one.size))
        owners.append(np.full(int(kept.sum()), number))
    return np.concatenate(scales), np.concatenate(places).clip(0, 1), np.concatenate(owners)


def _ranges(scales_N: Floats) -> tuple[tuple[int, int], ...]:
    """Ranges of scales by level, rising, overlapping, and covering all objects."""
    bounds = np.quantile(scales_N, np.arange(1, LEVELS) / LEVELS)
    bounds = np.maximum(bounds, FINEST[1:])
    for place in range(1, len(bounds)):
        bounds[place] = max(bounds[place], bounds[place - 1] * OVERLAP)
    lows = [1, *(int(bound / OVERLAP) for bound in bounds)]
    highs = [*(int(np.ceil(bound * OVERLAP)) for bound in bounds), 0]
    highs[-1] = max(int(np.ceil(scales_N.max())), 2 * lows[-1])
    return tuple(zip(lows, highs, strict=True))


def _fit_level(
    scales_N: Floats, places_N2: Floats, owners_N: npt.NDArray[np.int64], span: tuple[int, int]
) -> tuple[int, int, float]:
    """Grid, number of objects, and share lost, of one level."""
    chosen = (scales_N >= span[0]) & (scales_N <= span[1])
    losses = [lost_share(places_N2[chosen], owners_N[chosen], grid) for grid in GRIDS]
    best = next((place for place, lost in enumerate(losses) if lost <= SHARED), int(np.argmin(losses)))
    return GRIDS[best], int(chosen.sum()), losses[best]
