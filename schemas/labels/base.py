"""What the configurations of all producers share: how inputs are cut into shards, decoded, and written."""

from typing import Literal

from pydantic import Field, model_validator

from ..section import Section, auto


class PlanConfig(Section):
    """How the inputs are cut into units of work, retry and commit."""

    shard_size: int = Field(
        1024,
        ge=1,
        le=65536,
        description="Images per shard; aim at 10 to 120 s of work, so that a retry is cheap.",
    )


class DecodeConfig(Section):
    """From bytes to a resized RGB image, with every limit checked before memory is spent."""

    short_side: int = Field(
        800, ge=32, le=8192, description="Shorter side after resizing, in pixels: sets the grid's resolution."
    )
    long_side: int = Field(
        1333, ge=32, le=16384, description="Upper bound of the longer side after resizing, in pixels."
    )
    keep_ratio: bool = Field(
        True,
        description="False stretches every image to long_side x short_side (width x height), as UPLVP does.",
    )
    align: int = Field(
        1,
        ge=1,
        le=64,
        description="Round resized sides to a multiple, in pixels: 1 is exact; 32 makes fewer shapes, larger batches.",
    )
    exif: Literal["auto", "ignore", "apply"] = Field(
        "auto",
        description="EXIF rotation; auto applies it, but for a COCO json, whose sizes and masks are of stored pixels.",
        json_schema_extra=auto("exif"),
    )
    min_side: int = Field(8, ge=1, description="Images with a shorter side, in pixels, hold nothing to segment.")
    max_pixels: int = Field(
        100_000_000,
        ge=1,
        le=2**30,
        description="Largest image decoded, in pixels: read from the header, before decoding.",
    )
    max_bytes: int = Field(200_000_000, ge=1, description="Largest file decoded, in bytes.")


class RefineConfig(Section):
    """Edges of the photograph for soft maps (guided filter)."""

    radius: int = Field(0, ge=0, le=256, description="Of the filter's window, in pixels of the decoded image; 0: off.")
    eps: float = Field(
        1e-3, gt=0, le=1, description="Variance of brightness, in 0..1, below which a window counts as flat."
    )


class LabelConfig(Section):
    """Base of a producer's whole configuration."""

    plan: PlanConfig = PlanConfig()
    decode: DecodeConfig = DecodeConfig()

    @property
    def compression_level(self) -> int:
        """Zstd level of the files written."""
        raise NotImplementedError

    @property
    def batch_size(self) -> int:
        """Images per forward pass; 0 while that is left to the device."""
        raise NotImplementedError

    @property
    def words(self) -> str:
        """What computes and in which arithmetic, for people."""
        raise NotImplementedError

    @property
    def needs_parent(self) -> bool:
        """Whether labels are made from those of another data set, and not without."""
        return False

    @model_validator(mode="after")
    def _sides_are_ordered(self) -> "LabelConfig":
        if 0 < self.decode.long_side < self.decode.short_side:
            raise ValueError("decode.long_side is below decode.short_side: raise one or lower the other")
        return self
