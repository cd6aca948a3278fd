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
    """As `valid_rles`, of strings that end with a whole number."""
    stops = np.flatnonzero(ends) + 1
    starts = np.concatenate([[0], stops[:-1]])
    length = stops - starts
    first = np.searchsorted(starts, offsets)  # number of each mask's first run: [n + 1]
    runs = np.diff(first)
    long = length > _LONGEST
    place = np.arange(len(chars)) - np.repeat(starts, length)
    digits = (chars & 0x1F).astype(np.int64) << (_BITS * np.minimum(place, _LONGEST))
    value = np.add.reduceat(digits, starts)
    negative = (chars[stops - 1] & _SIGN) > 0
    value[negative] -= np.int64(1) << (_BITS * np.minimum(length[negative], _LONGEST + 1))
    value[long] = -(2**40)
    # Undo the differences: runs 1, 3, 5, ... and 2, 4, 6, ... are two running sums; run 0 stands alone.
    owner = np.repeat(np.arange(len(runs)), runs)
    index = np.arange(len(value)) - first[owner]
    for parity in (0, 1):
        mine = np.flatnonzero((index % 2 == parity) & (index > 0))
        if not len(mine):
            continue
        total = np.cumsum(value[mine])
        begins = np.flatnonzero(np.diff(owner[mine], prepend=-1))
        before = np.where(begins > 0, total[begins - 1], 0)
        value[mine] = total - np.repeat(before, np.diff(begins, append=len(mine)))
    bad = (value < 0) | (value > MAX_PIXELS)
    value[bad] = 0
    wrong = np.add.reduceat(bad, first[:-1]) > 0
    total = np.add.reduceat(value, first[:-1])
    area = np.add.reduceat(np.where(index % 2 == 1, value, 0), first[:-1])
    wrong |= (total != pixels) | (runs > pixels + 1)
    return np.where(wrong, -1, area).astype(np.int64)
