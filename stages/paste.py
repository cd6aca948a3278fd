"""From what a detector found to COCO masks at the size of the stored image.

A soft map of the whole batch image is enlarged to the batch's size, cut to the image in it, and scaled to the stored
size, bilinearly each time (half-pixel centres, no antialias); one of a box is put where the box is, fading to 0 within
half a cell around it. The mask is what is above the threshold. Interpolation never exceeds its neighbours: only the
part of a map around cells above the threshold is looked at. Along a column of the stored image the result is linear
between the rows of the image that was computed on, so that runs follow without drawing (see `encode.column_runs`).

Shape legend: n instances, h w cells of a map, R knots of a column, X columns of the stored image.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ..models.detector import Size
from .encode import Floats, Ints, MaskRuns, column_runs, compress_runs, measure_runs


@dataclass(frozen=True, slots=True, eq=False)
class Pasted:
    """Instances with at least one pixel, in the order given.

    kept [N]: their indices among the n found; counts: N COCO compressed RLEs of the stored image; bbox [N, 4]: tight
    XYWH in pixels; area [N]: pixels; maskness [N]: mean of the map where it is above the threshold.
    """

    kept: Ints
    counts: list[bytes]
    bbox: Floats
    area: Ints
    maskness: Floats


@dataclass(frozen=True, slots=True)
class Frame:
    """Sizes (height, width) of one image: of the batch it was padded to, resized before that, and in its file."""

    padded: Size
    resized: Size
    stored: Size


def paste(
    maps_nhw: Floats,
    boxes_n4: Floats | None,
    frame: Frame,
    *,
    threshold: float = 0.5,
    min_area: int = 1,
) -> Pasted:
    """Encode soft maps in 0..1: of the whole padded image, or of what is in each box (XYXY, in its pixels)."""
    height, width = frame.stored
    tau = float(np.nextafter(np.float32(threshold), np.float32(np.inf)))  # above it, not at it
    starts: list[Ints] = []
    ends: list[Ints] = []
    kept: list[int] = []
    for place, map_hw in enumerate(maps_nhw):
        found = (
            _whole_runs(map_hw, frame, tau)
            if boxes_n4 is None
            else _boxed_runs(map_hw, _scaled(boxes_n4[place], frame), frame.stored, tau)
        )
        if found is not None and len(found[0]):
            starts.append(found[0])
            ends.append(found[1])
            kept.append(place)
    index = np.array(kept, np.int64)
    if not kept:
        return Pasted(index, [], np.zeros((0, 4), np.float32), index, np.zeros(0, np.float32))
    sizes = np.array([len(start) for start in starts])
    runs = MaskRuns(index, np.cumsum(sizes) - sizes, np.concatenate(starts), np.concatenate(ends), height, width)
    area, bbox = measure_runs(runs)
    passed = area >= min_area
    index = index[passed]
    return Pasted(index, compress_runs(runs, passed), bbox[passed], area[passed], _maskness(maps_nhw[index], threshold))


def _maskness(maps_Nhw: Floats, threshold: float) -> Floats:
    inside = maps_Nhw > np.float32(threshold)
    # a mask may have pixels between cells of a box alone, of which none is inside
    cells = np.maximum(inside.sum((1, 2)), 1)
    mean: Floats = (np.where(inside, maps_Nhw, 0).sum((1, 2)) / cells).astype(np.float32)
    return mean


def _whole_runs(map_hw: Floats, frame: Frame, tau: float) -> tuple[Ints, Ints] | None:
    """First and last pixels (exclusive) of the runs of a map of the whole padded image; None if there is none."""
    inside = map_hw >= tau
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(rows):
        return None
    y, x = _Axis.around(rows, map_hw.shape[0], 0, frame), _Axis.around(columns, map_hw.shape[1], 1, frame)
    if y.length <= 0 or x.length <= 0:
        return None  # in the padding
    part = np.ascontiguousarray(map_hw[y.first : y.last, x.first : x.last])
    wide: Floats = cv2.resize(part, (x.enlarged, len(part)), interpolation=cv2.INTER_LINEAR)[:, : x.length]  # type: ignore[assignment]  # of the type it came in
    left, across_Xh = x.to_stored(wide.T)
    if not len(across_Xh):
        return None
    level_XR = np.empty((len(across_Xh), y.length + 1), np.float32)
    level_XR[:, 0] = -1.0
    tall = cv2.resize(across_Xh, (y.enlarged, len(across_Xh)), interpolation=cv2.INTER_LINEAR)
    level_XR[:, 1:] = tall[:, : y.length]
    height = frame.stored[0]
    step = height / frame.resized[0]
    _, start, end = column_runs(level_XR[None], tau, height, step=step, origin=y.offset * step)
    return start + left * height, end + left * height


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis of the part of a map that matters: cells [first, last), which become `enlarged` pixels of the batch.

    `offset` is the first of these pixels, `length` how many of them lie in the image; the image has `resized` pixels
    on this axis and `stored` in its file.
    """

    first: int
    last: int
    enlarged: int
    offset: int
    length: int
    resized: int
    stored: int

    @classmethod
    def around(cls, inside: Ints, cells: int, axis: int, frame: Frame) -> "_Axis":
        """The cells that are inside and two more on either side: beyond one, nothing can be above the threshold."""
        padded, resized, stored = frame.padded[axis], frame.resized[axis], frame.stored[axis]
        first, last = max(0, int(inside[0]) - 2), min(cells, int(inside[-1]) + 3)
        if padded % cells:  # a part would be enlarged by another factor
            first, last = 0, cells
        offset = first * padded // cells
        enlarged = (last - first) * padded // cells
        return cls(first, last, enlarged, offset, min(enlarged, resized - offset), resized, stored)

    def to_stored(self, values_mh: npt.NDArray[np.float32]) -> tuple[int, Floats]:
        """Interpolate pixels of the image, [length, h], to those of its file: the first of these, and [X, h]."""
        if self.stored == self.resized:
            return self.offset, np.ascontiguousarray(values_mh)
        scale = self.resized / self.stored
        begin = max(0, math.ceil((self.offset - 0.5) / scale - 0.5))
        end = min(self.stored, math.floor((self.offset + self.length + 0.5) / scale - 0.5) + 1)
        source = np.clip((np.arange(begin, end) + 0.5) * scale - 0.5 - self.offset, 0, self.length - 1)
        low = source.astype(np.int64)
        high = np.minimum(low + 1, self.length - 1)
        share = (source - low).astype(np.float32)[:, None]
        values_mh = np.ascontiguousarray(values_mh)
        return begin, values_mh[low] * (1 - share) + values_mh[high] * share


def _scaled(box_4: Floats, frame: Frame) -> Floats:
    """A box in pixels of the stored image."""
    scale_y, scale_x = frame.stored[0] / frame.resized[0], frame.stored[1] / frame.resized[1]
    scaled: Floats = box_4 * np.array([scale_x, scale_y, scale_x, scale_y], np.float32)
    return scaled


def _boxed_runs(map_hw: Floats, box_4: Floats, stored: Size, tau: float) -> tuple[Ints, Ints] | None:
    """The same of a map that fills a box, XYXY in pixels of the stored image."""
    height, width = stored
    x1, y1, x2, y2 = (float(side) for side in box_4)
    rows, columns = map_hw.shape
    cell_x, cell_y = max(x2 - x1, 1e-6) / columns, max(y2 - y1, 1e-6) / rows
    begin = max(0, math.floor(x1 - cell_x / 2))
    end = min(width, math.ceil(x2 + cell_x / 2))
    if begin >= end:
        return None
    knots_wR = np.zeros((columns + 2, rows + 2), np.float32)  # 0 around the box
    knots_wR[1:-1, 1:-1] = map_hw.T
    source = np.clip((np.arange(begin, end) + 0.5 - x1) / cell_x + 0.5, 0, columns + 1)
    low = np.minimum(source.astype(np.int64), columns)
    share = (source - low).astype(np.float32)[:, None]
    level_XR = knots_wR[low] * (1 - share) + knots_wR[low + 1] * share
    _, start, end_ = column_runs(level_XR[None], tau, height, step=cell_y, origin=y1, bordered=False)
    return start + begin * height, end_ + begin * height
