"""Configuration of the detector producer: a trained model labels photographs."""

from typing import Any

from pydantic import Field

from ..section import Precision, Section, auto, since
from .base import DecodeConfig, LabelConfig


class DetectorDecodeConfig(DecodeConfig):
    """As photographs are decoded for any producer, at the size that the model was trained at."""

    short_side: int = Field(
        0,
        ge=0,
        le=8192,
        description="Shorter side after resizing, in pixels; 0 takes that of training.",
        json_schema_extra=auto("short_side"),
    )
    long_side: int = Field(
        0,
        ge=0,
        le=16384,
        description="Upper bound of the longer side, in pixels; 0 takes that of training.",
        json_schema_extra=auto("long_side"),
    )


class DetectConfig(Section):
    """What counts as found."""

    precision: Precision = Field(
        "auto",
        description="Arithmetic of the model; auto takes bf16 where the hardware has it.",
        json_schema_extra=auto("precision"),
    )
    batch_size: int = Field(
        0,
        ge=0,
        le=512,
        description="Images per forward pass, padded to one size; 0 picks by device when planning.",
        json_schema_extra=auto("batch_size"),
    )
    min_score: float = Field(0.3, ge=0, le=1, description="Smallest score: lower ones are rather wrong than right.")
    max_masks: int = Field(100, ge=1, le=1000, description="Instances kept per image, best first.")
    one_label: bool = Field(
        True, description="Of a mask that is found under several labels keep the best; false stores it under each."
    )
    threshold: float = Field(0.5, gt=0, lt=1, description="A pixel belongs to the mask above this probability.")
    min_area: int = Field(1, ge=1, description="Smallest mask in the stored image, in pixels.")
    max_width: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Masks of so large a share of the image's width, or larger, are left out; 1 keeps all.",
        json_schema_extra=since("0.2"),
    )
    vectors: bool = Field(True, description="Store each instance's vector, where the model has one, as fp16.")


class PackConfig(Section):
    """How files are written."""

    compression_level: int = Field(1, ge=1, le=19, description="zstd level of parquet and zarr files.")


class DetectorConfig(LabelConfig):
    """The whole configuration of labelling with a trained model."""

    decode: DetectorDecodeConfig = DetectorDecodeConfig()
    detect: DetectConfig = DetectConfig()
    encode: PackConfig = PackConfig()

    @property
    def compression_level(self) -> int:
        """See `LabelConfig`."""
        return self.encode.compression_level

    @property
    def batch_size(self) -> int:
        """See `LabelConfig`."""
        return self.detect.batch_size

    @property
    def words(self) -> str:
        """See `LabelConfig`."""
        return f"a trained detector, {self.detect.precision}"


DETECTOR_PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "detector": {},
    # labels of a self-training round (thesis, Deep Object Segmentation, section 6.2.3; at most 20 in its code)
    "freesolo-round": {"detect": {"min_score": 0.3, "max_masks": 20}},
}
