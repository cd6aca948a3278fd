"""COCO run-length encoding in numpy.

pycocotools encodes one mask at a time and holds the GIL meanwhile. Here runs of all masks of an image are
compressed together, in few numpy loops that release it. Bytes are equal to those of pycocotools.

COCO counts pixels column by column. Here a mask is a C-contiguous [W, H] array, the transpose of the image's [H, W].
"""

from typing import Any

import numpy as np
import numpy.typing as npt


def encode_column_major(mask_WH: npt.NDArray[Any]) -> bytes:
    """COCO compressed RLE of a mask: the `counts` that pycocotools gives for its transpose [H, W]."""
    return compress(runs(mask_WH))


def runs(mask_WH: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Lengths of a mask's alternating runs, zeros first (length 0 if the first pixel is set); their sum is W*H.

    `mask_WH`: uint8 or bool, C-contiguous, one value for set pixels and 0 for the others.
    """
    assert mask_WH.flags.c_contiguous
    assert mask_WH.itemsize == 1
    flat = mask_WH.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = ([0, 0] if flat[0] else [0], changes, [flat.size])
    return np.diff(np.concatenate(edges))


def compress(counts: npt.NDArray[np.int64]) -> bytes:
    """COCO's compressed form of one mask's run lengths."""
    return compress_many(counts, np.array([counts.size]))[0]


def compress_many(counts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]) -> list[bytes]:
    """COCO's compressed form of the run lengths of several masks, one after another, mask i having sizes[i] >= 1.

    From its fourth run on, a mask's length is written as the difference from the run two before. Numbers are
    written in digits of 5 bits, lowest first, each as one character from "0" on; 32 is added while digits
    follow, and the highest bit of the last digit is the sign. Lengths are below 2^31.
    """
    ends = np.cumsum(sizes)
    value = counts.astype(np.int32)
    value[2:] -= value[:-2].copy()
    heads = (ends - sizes)[:, None] + np.arange(3)
    heads = heads[heads < ends[:, None]]
    value[heads] = counts[heads]

    columns = []  # of the k-th characters; 0 where a number has fewer
    more = np.ones(value.size, bool)
    while more.any():
        alive = more
        digit = (value & 31).astype(np.uint8)
        value >>= 5
        more = value != -(digit >> 4).astype(np.int32)  # what is left is not yet the digit's sign alone
        columns.append((digit + (more.view(np.uint8) * np.uint8(32) + np.uint8(48))) * alive)
    table = np.stack(columns, axis=1)
    return [table[end - size : end].tobytes().translate(None, b"\0") for size, end in zip(sizes, ends, strict=True)]
