"""COCO run-length encoding in numpy.

pycocotools encodes one mask at a time and holds the GIL meanwhile. Here runs of all masks of an image are
compressed together, in few numpy loops that release it. Bytes are equal to those of pycocotools.

COCO counts pixels column by column, starting with a run of zeros (of length 0 if the first pixel is set).
"""

import numpy as np
import numpy.typing as npt


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
