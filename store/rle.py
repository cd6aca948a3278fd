"""Whether compressed RLEs may be handed to pycocotools, whose decoder trusts them.

The code is that of COCO's `rleToString`: a run length takes as many characters as it needs, each of 6 bits (less 48),
with 5 bits of the number, low ones first, and one that says that more follow; the last has the sign in its fifth bit.
From the fourth run on it is the difference from the run before the last.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

MAX_PIXELS = 2**30  # of a mask; it is also the most that `decode.max_pixels` may be
_MORE, _SIGN, _BITS, _ZERO = 0x20, 0x10, 5, 48
_LONGEST = 7  # characters of a number below 2^31, with its sign
_PIECE = 1 << 15  # characters looked at at once

Ints = npt.NDArray[np.int64]


def valid_rles(counts: pa.ChunkedArray, heights_n: npt.NDArray[np.int32], widths_n: npt.NDArray[np.int32]) -> Ints:
    """The area of every mask in pixels, -1 where its RLE is none of a mask of that size: [n].

    Runs must be numbers of at most seven characters, none negative, no more than there are pixels and one, and add up
    to height times width. Nothing is decoded, and memory goes with the length of the strings alone.
    """
    chars, offsets = _buffers(counts)
    n = len(heights_n)
    pixels = heights_n.astype(np.int64) * widths_n
    good = (heights_n > 0) & (widths_n > 0) & (pixels <= MAX_PIXELS) & (np.diff(offsets) > 0)
    ends = (chars & _MORE) == 0
    last = np.clip(offsets[1:] - 1, 0, max(0, len(chars) - 1))
    if len(chars):
        good &= ends[last]
    outside = np.concatenate([[0], np.cumsum(chars > 63)])  # 8-bit arithmetic takes what is below 48 beyond 63, too
    good &= outside[offsets[1:]] == outside[offsets[:-1]]
    area = np.full(n, -1, np.int64)
    if not good.any():
        return area
    if not good.all():
        kept = np.repeat(good, np.diff(offsets))
        chars, ends = chars[kept], ends[kept]
        offsets = np.concatenate([[0], np.cumsum(np.diff(offsets)[good])])
    area[good] = _areas(chars, ends, offsets, pixels[good])
    return area


def _buffers(counts: pa.ChunkedArray) -> tuple[npt.NDArray[np.uint8], Ints]:
    """All characters less 48, and where each mask's begin: [n + 1]."""
    array = counts.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # none at all
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    _, starts, data = array.buffers()
    offsets = np.frombuffer(starts, np.int32)[array.offset : array.offset + len(array) + 1].astype(np.int64)
    begin, end = (int(offsets[0]), int(offsets[-1])) if len(offsets) else (0, 0)
    chars = np.frombuffer(data, np.uint8)[begin:end] if data is not None else np.zeros(0, np.uint8)
    return chars - np.uint8(_ZERO), offsets - begin


def _areas(chars: npt.NDArray[np.uint8], ends: npt.NDArray[np.bool_], offsets: Ints, pixels: Ints) -> Ints:
    """As `valid_rles`, of strings that end with a whole number; some thousand masks at a time stay in the cache."""
    pieces = []
    start = 0
    while start < len(pixels):
        stop = max(start + 1, int(np.searchsorted(offsets, offsets[start] + _PIECE, side="right")) - 1)
        mine = slice(offsets[start], offsets[stop])
        pieces.append(
            _areas_at_once(chars[mine], ends[mine], offsets[start : stop + 1] - offsets[start], pixels[start:stop])
        )
        start = stop
    return np.concatenate(pieces)


def _areas_at_once(chars: npt.NDArray[np.uint8], ends: npt.NDArray[np.bool_], offsets: Ints, pixels: Ints) -> Ints:
    stops = np.flatnonzero(ends)
    starts = np.empty_like(stops)
    starts[0], starts[1:] = 0, stops[:-1] + 1
    value, long = _numbers(chars, starts, stops)
    first = np.searchsorted(starts, offsets)  # number of each mask's first run: [n + 1]
    runs = np.diff(first)
    owner_first = np.repeat(first[:-1], runs)
    index = np.arange(len(value)) - owner_first
    odd = (index & 1).astype(bool)
    # Undo the differences: runs 1, 3, 5, ... and 2, 4, 6, ... are two running sums; run 0 stands alone.
    for mine in (odd, ~odd & (index > 0)):
        total = np.cumsum(value * mine)
        before = np.where(first[:-1] > 0, total[first[:-1] - 1], 0)
        np.copyto(value, total - np.repeat(before, runs), where=mine)
    bad = (value < 0) | (value > MAX_PIXELS) | long
    value[bad] = 0
    wrong = np.logical_or.reduceat(bad, first[:-1])
    wrong |= (np.add.reduceat(value, first[:-1]) != pixels) | (runs > pixels + 1)
    area: Ints = np.add.reduceat(value * odd, first[:-1])
    return np.where(wrong, -1, area)


def _numbers(chars: npt.NDArray[np.uint8], starts: Ints, stops: Ints) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """The numbers between characters `starts` and `stops`, both included, and which of them are too long to be one."""
    value = (chars[starts] & 0x1F).astype(np.int64)
    length = stops - starts + 1
    longer = np.flatnonzero(length > 1)
    for place in range(1, _LONGEST):
        if not len(longer):
            break
        value[longer] |= (chars[starts[longer] + place] & 0x1F).astype(np.int64) << (_BITS * place)
        longer = longer[length[longer] > place + 1]
    negative = np.flatnonzero(chars[stops] & _SIGN)
    value[negative] -= np.int64(1) << (_BITS * np.minimum(length[negative], _LONGEST))
    long = (length > _LONGEST) | (np.abs(value) > 2 * MAX_PIXELS)  # so that sums of them stay within 64 bits
    value[long] = 0
    return value, long
