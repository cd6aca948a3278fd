"""What flows between the steps of a shard and into the store: plain frozen dataclasses and arrow schemas.

Shape legend: n masks of one image, D feature channels, H W feature cells.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

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


Column = npt.NDArray[Any] | Sequence[Any]  # one value for every mask


@dataclass(frozen=True, slots=True, eq=False)
class MaskSet:
    """The kept masks of one image, best first, as aligned columns; `extra` are those of one producer alone."""

    counts: Sequence[bytes]  # COCO compressed RLE, n strings, at the size of the stored image
    bbox: npt.NDArray[np.float32]  # [n, 4] XYWH in pixels, tight
    area: npt.NDArray[np.int64]  # [n] pixels
    score: npt.NDArray[np.float32]  # [n], none above the one before; saliency's is that after NMS decay
    vectors: dict[str, npt.NDArray[np.float16]] = field(default_factory=dict)  # name -> [n, D], say "seed", "box_mean"
    saliency: npt.NDArray[np.uint8] | None = None  # [n, H, W] soft maps, round(255 p)
    source: str = "saliency"  # what proposed them
    extra: dict[str, Column] = field(default_factory=dict)  # name -> [n], as the data set's `mask_columns` declare

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

_BEFORE_SCORE = (
    pa.field("image_id", pa.int64(), nullable=False),
    pa.field("rank", pa.int16(), nullable=False),  # 0 is the image's best mask
    pa.field("counts", pa.binary(), nullable=False),
    pa.field("height", pa.int32(), nullable=False),
    pa.field("width", pa.int32(), nullable=False),
    pa.field("bbox", pa.list_(pa.float32(), 4), nullable=False),
    pa.field("area", pa.int64(), nullable=False),
)
_SCORE = pa.field("score", pa.float32(), nullable=False)
_SOURCE = pa.field("source", pa.string(), nullable=False)
CORE_COLUMNS = (*_BEFORE_SCORE, _SCORE, _SOURCE)  # of masks.parquet, whoever proposed the masks

SALIENCY_COLUMNS = (
    pa.field("score_raw", pa.float32(), nullable=False),  # maskness before NMS
    pa.field("seed_scale", pa.int8(), nullable=False),  # index into saliency.scales
    pa.field("seed_y", pa.int16(), nullable=False),  # cell at that scale
    pa.field("seed_x", pa.int16(), nullable=False),
)

# What a producer's own column may hold, by the name that a card gives.
COLUMN_TYPES: Mapping[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "string": pa.string(),
    "list<float>": pa.list_(pa.float32()),
    "list<string>": pa.list_(pa.string()),
}


def masks_schema(extra: Sequence[pa.Field] = ()) -> pa.Schema:
    """The columns of masks.parquet: the core and what a producer adds to it.

    A raw score stands before the score and the rest after it, so that saliency data sets keep their bytes.
    """
    names = [column.name for column in (*CORE_COLUMNS, *extra)]
    assert len(set(names)) == len(names), "a producer's column has the name of another"
    raw = [column for column in extra if column.name == "score_raw"]
    others = [column for column in extra if column.name != "score_raw"]
    return pa.schema([*_BEFORE_SCORE, *raw, _SCORE, *others, _SOURCE])


def columns_of(declared: Mapping[str, str]) -> list[pa.Field]:
    """A producer's columns from names and the names of their types, as a card has them."""
    return [pa.field(name, COLUMN_TYPES[kind], nullable=False) for name, kind in declared.items()]


def declare(columns: Sequence[pa.Field]) -> dict[str, str]:
    """The other way: what a card says of a producer's columns."""
    kinds = {kind: name for name, kind in COLUMN_TYPES.items()}
    return {column.name: kinds[column.type] for column in columns}


MASKS_SCHEMA = masks_schema(SALIENCY_COLUMNS)
