"""What flows between the steps of a shard and into the store: plain frozen dataclasses and arrow schemas.

Shape legend: n masks of one image, D feature channels, H W feature cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

ImageStatus = Literal["ok", "empty", "quarantined"]

# Why an image was set aside. The words are stored in the data set and may be filtered on.
QuarantineReason = Literal[
    "unreadable",  # missing, no permission, or the store did not give it
    "path_escape",  # its name leads out of the given root; never opened
    "empty_file",
    "too_many_bytes",  # larger than decode.max_bytes; never decoded
    "too_many_pixels",  # header promises more than decode.max_pixels; never decoded
    "too_many_scans",  # a progressive JPEG that goes over its pixels more often than photographs do; never decoded
    "unsupported_format",  # none of those we read, by its first bytes
    "decode_failed",
    "size_mismatch",  # decoded size differs from the size the input list declares
    "too_small",  # a side below decode.min_side, or fewer than 2 feature cells on a side
    "non_finite_features",
    "crashed",  # the process that computed it died, again and again; only workers on a cluster survive that
]


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One planned input.

    `image_id` is the COCO id where one is given, else derived from `file_name` (never from order).
    `file_name` is relative to the given root, with forward slashes. `uri` is where the bytes are: an
    absolute local path or a bucket URL. Sizes are None where the input list does not declare them.
    """

    image_id: int
    file_name: str
    uri: str
    size_bytes: int | None = None
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class MaskSet:
    """The kept masks of one image, best first, as aligned columns."""

    counts: Sequence[bytes]  # COCO compressed RLE, n strings, at the size of the stored image
    bbox: npt.NDArray[np.float32]  # [n, 4] XYWH in pixels, tight
    area: npt.NDArray[np.int64]  # [n] pixels
    score_raw: npt.NDArray[np.float32]  # [n] maskness before NMS
    score: npt.NDArray[np.float32]  # [n] after NMS decay
    seed_scale: npt.NDArray[np.int8]  # [n] index into saliency.scales
    seed_yx: npt.NDArray[np.int16]  # [n, 2] cell at that scale
    vectors: dict[str, npt.NDArray[np.float16]]  # name -> [n, D]: "seed" (unit length), "box_mean"
    saliency: npt.NDArray[np.uint8] | None = None  # [n, H, W] soft maps, round(255 p)

    def __len__(self) -> int:
        return len(self.counts)


@dataclass(frozen=True, slots=True, eq=False)
class ImageRecord:
    """The outcome for one image: every planned image gives exactly one.

    `width` and `height` are those of the stored image (EXIF rotation not applied unless
    `decode.exif = "apply"`). `sha256` is the hex digest of the input bytes, None if they could not be read.
    """

    image_id: int
    file_name: str
    status: ImageStatus
    width: int = 0
    height: int = 0
    exif_orientation: int = 1
    resized_width: int = 0
    resized_height: int = 0
    sha256: str | None = None
    reason: QuarantineReason | None = None
    error: str | None = None
    masks: MaskSet | None = None


INPUTS_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("file_name", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("shard_id", pa.int32(), nullable=False),
    ]
)

IMAGES_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("file_name", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("error", pa.string()),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("exif_orientation", pa.int8(), nullable=False),
        pa.field("resized_width", pa.int32(), nullable=False),
        pa.field("resized_height", pa.int32(), nullable=False),
        pa.field("sha256", pa.string()),
        pa.field("n_masks", pa.int32(), nullable=False),
        pa.field("first_mask", pa.int64(), nullable=False),  # its rows in masks.parquet: [first, first + n)
    ]
)

MASKS_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("rank", pa.int16(), nullable=False),  # 0 is the image's best mask
        pa.field("counts", pa.binary(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("bbox", pa.list_(pa.float32(), 4), nullable=False),
        pa.field("area", pa.int64(), nullable=False),
        pa.field("score_raw", pa.float32(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("seed_scale", pa.int8(), nullable=False),
        pa.field("seed_y", pa.int16(), nullable=False),
        pa.field("seed_x", pa.int16(), nullable=False),
        pa.field("source", pa.string(), nullable=False),  # "saliency": room for other proposal sources
    ]
)
