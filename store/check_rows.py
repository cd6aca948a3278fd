"""What must hold of the rows of a shard before anything is done with them: cheap, done wherever they are read.

What needs masks to be decoded is verify's work, in check_shard.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..schemas.manifest import ShardCounts
from .rle import valid_rles

MAX_SIDE = 2**20  # of an image, in pixels
STATUSES = ("ok", "empty", "quarantined")


def check_images(images: pa.Table, counts: ShardCounts) -> Iterator[str]:
    """What is wrong with the rows of images.parquet."""
    status, n_masks = images["status"], images["n_masks"].to_numpy()
    flags = {name: pc.equal(status, name).to_numpy() for name in STATUSES}
    by_status = {name: int(flag.sum()) for name, flag in flags.items()}
    total = int(n_masks.sum(dtype=np.int64))
    if (n_masks < 0).any():
        yield "does not hold numbers of masks"
        return
    if ShardCounts(images=len(images), masks=total, **by_status) != counts:
        yield "does not hold what the commit counts"
    yield from bad_rows("masks and status `ok` do not go together", (n_masks > 0) != flags["ok"])
    reasons = images["reason"].is_valid().to_numpy()
    yield from bad_rows("reason and status `quarantined` do not go together", reasons != flags["quarantined"])
    first = images["first_mask"].to_numpy()
    if (first != np.cumsum(n_masks, dtype=np.int64) - n_masks).any():
        yield "has no rows of masks where the images' `first_mask` and `n_masks` say"
    sides = np.stack([images["width"].to_numpy(), images["height"].to_numpy()])
    yield from bad_rows("the size is none of an image", ((sides < 0) | (sides > MAX_SIDE)).any(0))
    yield from bad_rows("the size is 0", (sides < 1).any(0) & ~flags["quarantined"])


def check_masks(masks: pa.Table) -> Iterator[str]:
    """What is wrong with the rows of masks.parquet by themselves."""
    if not len(masks):
        return
    height, width = masks["height"].to_numpy(), masks["width"].to_numpy()
    area = valid_rles(masks["counts"], height, width)
    yield from bad_rows("the RLE is none of a mask of that size", area < 0)
    yield from bad_rows("area is not that of the RLE", (area >= 0) & (masks["area"].to_numpy() != area))
    score = masks["score"].to_numpy()
    scores = [score, masks["score_raw"].to_numpy()] if "score_raw" in masks.column_names else [score]
    yield from bad_rows("score is not finite", ~np.isfinite(scores).all(0))
    rank = masks["rank"].to_numpy()
    yield from bad_rows("score is above that of a better rank", (np.diff(score, prepend=np.inf) > 0) & (rank > 0))
    box_n4 = boxes_of(masks)
    far_n2 = box_n4[:, :2] + box_n4[:, 2:]
    inside = (box_n4 >= 0).all(1) & (far_n2[:, 0] <= width) & (far_n2[:, 1] <= height)  # false for NaN
    yield from bad_rows("box is not XYWH inside the image", ~inside)


def check_belonging(images: pa.Table, masks: pa.Table) -> Iterator[str]:
    """What of the masks does not go with the images."""
    n_masks, first = images["n_masks"].to_numpy(), images["first_mask"].to_numpy()
    if (n_masks < 0).any() or len(masks) != n_masks.sum(dtype=np.int64):
        yield "has no rows where the images' `first_mask` and `n_masks` say"
        return
    for name in ("image_id", "width", "height"):
        of_image = np.repeat(images[name].to_numpy(), n_masks)
        yield from bad_rows(f"{name} is not that of the image", masks[name].to_numpy() != of_image)
    rank = masks["rank"].to_numpy()
    yield from bad_rows("rank is wrong", rank != np.arange(len(masks)) - np.repeat(first, n_masks))


def boxes_of(masks: pa.Table) -> npt.NDArray[np.float32]:
    """The boxes: [n, 4]."""
    boxes: npt.NDArray[np.float32] = pc.list_flatten(masks["bbox"]).to_numpy().reshape(-1, 4)
    return boxes


def bad_rows(sentence: str, bad: npt.ArrayLike) -> Iterator[str]:
    """The sentence, with how often and where first, if any row is bad."""
    rows = np.flatnonzero(bad)
    if len(rows):
        yield f"{sentence} in {len(rows)} rows, the first being {rows[0]}"
