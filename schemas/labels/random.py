"""Configuration of the random producer: rectangles for masks, the lower bound of comparisons."""

from typing import Any, Literal

from pydantic import Field, model_validator

from ..section import Section
from .base import LabelConfig
from .detector import PackConfig
from .saliency import FeaturesConfig, PromptsConfig


class BoxesConfig(Section):
    """The rectangles (UP-DETR's random query patches; Saliency Prompt Table 7, "Rand. Prop.")."""

    per_image: int = Field(10, ge=1, le=1000, description="Rectangles for each photograph.")
    smallest: float = Field(0.1, gt=0, le=1, description="Least width and height, as fractions of the image's.")
    largest: float = Field(0.9, gt=0, le=1, description="Greatest width and height, as fractions of the image's.")
    seed: int = Field(0, ge=0, lt=2**63, description="With the image's id it decides where the rectangles lie.")
    vector: Literal["centre", "mean"] = Field(
        "centre", description="Seed vector: the feature cell at the rectangle's centre, or the mean under it."
    )

    @model_validator(mode="after")
    def _ordered(self) -> "BoxesConfig":
        if self.largest < self.smallest:
            raise ValueError("boxes.largest is below boxes.smallest: raise one or lower the other")
        return self


class RandomConfig(LabelConfig):
    """The whole configuration of random rectangles."""

    features: FeaturesConfig = FeaturesConfig()
    boxes: BoxesConfig = BoxesConfig()
    prompts: PromptsConfig = PromptsConfig()
    encode: PackConfig = PackConfig()

    @property
    def compression_level(self) -> int:
        """See `LabelConfig`."""
        return self.encode.compression_level

    @property
    def batch_size(self) -> int:
        """See `LabelConfig`."""
        return self.features.batch_size

    @property
    def words(self) -> str:
        """See `LabelConfig`."""
        return f"random rectangles, vectors of {self.features.arch}, {self.features.precision}"


RANDOM_PRESETS: dict[str, dict[str, dict[str, Any]]] = {"random": {}}
