"""From soft maps on the feature grid to filtered COCO masks at the size of the stored image.

Upsampling is bilinear (half-pixel centres, no antialias). Along a column of the image an upsampled map is linear
between the rows of the grid, so the pixels where it crosses the threshold follow from one division: masks
are written down as runs without ever being drawn. For a 25x34 grid and a 480x640 image this is a tenth of the
work, and memory does not grow with the height of the image.

Shape legend: K maps, H W feature cells, R runs of set pixels, N masks; `height` and `width` are the image's.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ..schemas.labels.saliency import FiltersConfig
from .rle import compress_many

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
Share = tuple[float, float]  # of height and width
WHOLE: Share = (1.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class EncodedMasks:
    """The masks of one image that passed the filters, in the order given.

    kept [N]: their indices among the K maps; counts: N COCO compressed RLEs; bbox [N, 4]: tight XYWH in pixels;
    area [N]: pixels.
    """

    kept: Ints
    counts: list[bytes]
    bbox: Floats
    area: Ints


@dataclass(frozen=True, slots=True, eq=False)
class MaskRuns:
    """Runs of set pixels of the non-empty ones among K masks.

    index [N]: which masks these are, ascending; first [N]: their first runs; start, end [R]: pixels [start, end),
    counted column by column within each mask.
    """

    index: Ints
    first: Ints
    start: Ints
    end: Ints
    height: int
    width: int


def encode_masks(
    saliency_KHW: Floats,
    scores_K: Floats,
    *,
    height: int,
    width: int,
    tau: float,
    filters: FiltersConfig,
    share: Share = WHOLE,
) -> EncodedMasks:
    """Upsample, threshold (>= tau), filter and encode the maps of one image (values in 0..1, best first).

    `share` is the part of the maps' height and width that the image fills from the upper left, less than 1 where it was
    padded. A map with score 0 is none. Masks that lose all pixels are dropped. Filters follow the offline script of
    FreeSOLO (demo/inference_freemask.py); `min_score` comes first, before any work on pixels.
    """
    least = filters.min_score or 0.0
    candidates = np.flatnonzero((scores_K > 0) & (scores_K >= least))
    if filters.max_rim is not None:
        candidates = candidates[rim_share(saliency_KHW[candidates] >= tau) <= filters.max_rim]
    runs = upsampled_runs(saliency_KHW[candidates], height, width, tau, share)
    area, bbox, passed = _measure(runs, filters)
    if filters.keep_best and not passed.any():
        candidates = np.flatnonzero(scores_K > 0)
        runs = upsampled_runs(saliency_KHW[candidates], height, width, tau, share)
        area, bbox, _ = _measure(runs, filters)
        passed = np.arange(len(runs.index)) == 0
    return EncodedMasks(candidates[runs.index[passed]], compress_runs(runs, passed), bbox[passed], area[passed])


def rim_share(masks_KHW: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """The share of each mask's cells that lie in the outermost ring of the grid [K]; 0 of a mask without cells."""
    whole_K = masks_KHW.sum((1, 2))
    inner_K = masks_KHW[:, 1:-1, 1:-1].sum((1, 2))
    share: npt.NDArray[np.float64] = (whole_K - inner_K) / np.maximum(whole_K, 1)
    return share


def encode_runs(runs: MaskRuns) -> EncodedMasks:
    """The masks that have runs, as they are."""
    area, bbox = measure_runs(runs)
    return EncodedMasks(runs.index, compress_runs(runs, np.ones(len(runs.index), bool)), bbox, area)


def upsampled_runs(saliency_KHW: Floats, height: int, width: int, tau: float, share: Share = WHOLE) -> MaskRuns:
    """Runs of pixels >= tau in the bilinearly upsampled maps, in columns of `height` pixels; see `encode_masks`."""
    maps, rows, _ = saliency_KHW.shape
    cells_KWH = np.full((maps, saliency_KHW.shape[2], rows + 1), -1.0, np.float32)  # columns begin outside
    cells_KWH[:, :, 1:] = saliency_KHW.transpose(0, 2, 1)
    owner, start, end = column_runs(
        _interpolate_columns(cells_KWH, width, share[1]), tau, height, step=height / (rows * share[0])
    )
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    return MaskRuns(owner[first], first, start, end, height, width)


def column_runs(
    level_KWR: Floats, tau: float, height: int, *, step: float, origin: float = 0.0, bordered: bool = True
) -> tuple[Ints, Ints, Ints]:
    """Runs of pixels >= tau of K maps that are known at R knots of each image column, and linear in between.

    Knot r lies at `origin + (r - 0.5) * step` from the upper edge of the image. The first knot of every column must
    be below tau. If `bordered`, what is inside at the second or last knot reaches the upper or lower edge of
    the image; else the last knot must be below tau, too. Gives the map [R'], first and last (exclusive) pixel of every
    run, pixels being counted column by column from the maps' first column.
    """
    width, stride = level_KWR.shape[1:]
    rows = stride - 1
    level = level_KWR.reshape(-1)
    threshold = np.float32(tau)
    inside = np.zeros(level.size + 1, bool)
    np.greater_equal(level, threshold, out=inside[:-1])

    # edges: cells whose successor lies on the other side of the threshold
    cell = np.flatnonzero(inside[1:] != inside[:-1])
    column = cell // stride
    row = cell - column * stride  # row 0 is the cell before the first
    here = level[cell].astype(np.float64)
    there = level.take(cell + 1, mode="wrap").astype(np.float64)
    place = row - 0.5 + (np.float64(threshold) - here) / (there - here)
    place *= step
    place += origin
    place -= 0.5
    # the first pixel beyond the edge; every column starts and ends outside, so edges lead in and out in turn
    place[::2] = np.ceil(place[::2])
    place[1::2] = np.floor(place[1::2]) + 1
    if bordered:
        place[row == 0] = 0
        place[row == rows] = height
    mask = column // width
    # one pixel lies between masks, so that edges of different masks never meet
    edge = column * height + mask + np.clip(place, 0, height).astype(np.int64)
    np.maximum.accumulate(edge, out=edge)

    # edges at the same pixel cancel in pairs: between columns, or where a map crosses twice between two pixels
    group = np.flatnonzero(np.diff(edge, prepend=-1))
    odd = np.diff(group, append=edge.size) & 1
    group = group[odd.astype(bool)]
    edge = edge[group] - mask[group] * (height * width + 1)
    return mask[group[::2]], edge[::2], edge[1::2]


def _interpolate_columns(cells_KWH: Floats, width: int, share: float) -> Floats:
    """Linear interpolation [K, W, H] -> [K, width, H] with half-pixel centres, clamped at the border.

    `width` pixels are the first `share` of the cells.
    """
    maps, columns, rows = cells_KWH.shape
    if share < 1:
        place = ((np.arange(width) + 0.5) * (columns * share / width) - 0.5).clip(0, columns - 1)
        left = place.astype(np.int64)
        part = (place - left).astype(np.float32)[:, None]
        right = np.minimum(left + 1, columns - 1)
        between: Floats = cells_KWH[:, left] * (1 - part) + cells_KWH[:, right] * part
        return between
    level = np.empty((maps, width, rows), np.float32)
    for cells_WH, out in zip(cells_KWH, level, strict=True):
        cv2.resize(cells_WH, (rows, width), dst=out, interpolation=cv2.INTER_LINEAR)
    return level


def measure_runs(runs: MaskRuns) -> tuple[Ints, Floats]:
    """Areas [N] and tight boxes XYWH [N, 4]."""
    height, first = runs.height, runs.first
    if not first.size:
        return np.zeros(0, np.int64), np.zeros((0, 4), np.float32)
    last = first + _runs_per_mask(runs) - 1
    area = np.add.reduceat(runs.end - runs.start, first)
    left, top = np.divmod(runs.start, height)
    right, bottom = np.divmod(runs.end - 1, height)
    wraps = right > left  # a run that goes on in the next column touches both borders
    x, y = left[first], np.minimum.reduceat(np.where(wraps, 0, top), first)
    box_width = right[last] + 1 - x
    box_height = np.maximum.reduceat(np.where(wraps, height - 1, bottom), first) + 1 - y
    return area, np.stack([x, y, box_width, box_height], axis=1).astype(np.float32)


def _measure(runs: MaskRuns, filters: FiltersConfig) -> tuple[Ints, Floats, Flags]:
    """Areas [N], tight boxes XYWH [N, 4], and which masks pass the filters on geometry [N]."""
    height, width, first = runs.height, runs.width, runs.first
    area, bbox = measure_runs(runs)
    passed = area >= filters.min_area
    if not first.size:
        return area, bbox, passed
    left, top = np.divmod(runs.start, height)
    right = (runs.end - 1) // height
    if filters.max_width is not None:
        # columns of each run, less the one it shares with the run before it in the same mask
        columns = right - left + 1
        columns[1:] -= left[1:] == right[:-1]
        columns[first] = right[first] - left[first] + 1
        passed &= np.add.reduceat(columns, first) < filters.max_width * width
    if filters.min_center_y is not None:
        passed &= _center_y(runs, left, top) > filters.min_center_y * height
    return area, bbox, passed


def _center_y(runs: MaskRuns, left: Ints, top: Ints) -> npt.NDArray[np.float64]:
    """Mean index of the rows that a mask occupies, each row counted once [N]."""
    n, height = runs.first.size, runs.height
    offset = np.repeat(np.arange(n) * height, _runs_per_mask(runs))
    after, rest = np.divmod(runs.end, height)
    # before pixel p, row r has p // height pixels, and one more if r < p % height
    starts = np.bincount(offset + top, minlength=n * height)
    ends = np.bincount(offset + rest, minlength=n * height)
    pixels = np.cumsum((starts - ends).reshape(n, height), axis=1)
    pixels += np.add.reduceat(after - left, runs.first)[:, None]
    occupied = pixels > 0
    mean: npt.NDArray[np.float64] = np.where(occupied, np.arange(height), 0).sum(1) / occupied.sum(1)
    return mean


def compress_runs(runs: MaskRuns, passed: Flags) -> list[bytes]:
    """COCO compressed RLE of the masks that passed."""
    if not passed.any():
        return []
    zeros = runs.start.copy()
    zeros[1:] -= runs.end[:-1]
    zeros[runs.first] = runs.start[runs.first]
    per_mask = _runs_per_mask(runs)
    pairs = np.stack([zeros, runs.end - runs.start], axis=1)
    counts = pairs[np.repeat(passed, per_mask)].reshape(-1)

    sizes = 2 * per_mask[passed]
    rest = runs.height * runs.width - runs.end[runs.first + per_mask - 1][passed]
    open_end = rest > 0
    counts = np.insert(counts, np.cumsum(sizes)[open_end], rest[open_end])
    return compress_many(counts, sizes + open_end)


def _runs_per_mask(runs: MaskRuns) -> Ints:
    return np.diff(runs.first, append=runs.start.size)
