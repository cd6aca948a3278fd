"""Configuration of the imported producer: anybody's masks, with seed vectors of a frozen backbone."""

from typing import Any, Literal

from pydantic import Field

from ..section import FREE, Section
from .base import LabelConfig
from .detector import PackConfig
from .saliency import FeaturesConfig, PromptsConfig

MaskFormat = Literal["coco", "yolo", "png", "sam"]


class MasksConfig(Section):
    """Where the masks are, and which of them are taken."""

    path: str = Field(
        "",
        description="A COCO json (instances or results), or a folder of YOLO texts, PNG masks or SAM's output.",
        json_schema_extra=FREE,  # the digest counts
    )
    format: MaskFormat = Field("coco", description="How they are written.")
    sha256: str = Field(
        "", pattern="^([0-9a-f]{64})?$", description="Digest of what is there, as `import-masks` found it."
    )
    class_names: tuple[str, ...] = Field((), description="Names of the classes, by label.")
    min_score: float = Field(0.0, ge=0, le=1, description="Smallest score; masks without one have 1.")
    max_masks: int = Field(1000, ge=1, le=10_000, description="Masks kept per image, best first.")
    min_area: int = Field(1, ge=1, description="Smallest mask, in pixels.")


class ImportedConfig(LabelConfig):
    """The whole configuration of an import."""

    features: FeaturesConfig = FeaturesConfig()
    masks: MasksConfig = MasksConfig()
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
        return f"imported masks, vectors of {self.features.arch}, {self.features.precision}"


IMPORTED_PRESETS: dict[str, dict[str, dict[str, Any]]] = {"imported": {}}
