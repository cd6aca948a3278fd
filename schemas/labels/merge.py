"""Configuration of the merge producer: regions that hold together, merged bottom-up from superpixels."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from ..section import Section
from .base import LabelConfig, RefineConfig
from .detector import PackConfig
from .saliency import FeaturesConfig


class MergeConfig(Section):
    """Superpixels, the hierarchies over them, and what is kept."""

    scales: tuple[Annotated[float, Field(gt=0, le=4)], ...] = Field(
        (1.0,),
        min_length=1,
        max_length=4,
        description="Sizes at which features are computed, as fractions of the decoded image: larger for small things.",
    )
    side: int = Field(14, ge=4, le=128, description="Side of a superpixel, about, in pixels of the decoded image.")
    edges: tuple[Annotated[float, Field(ge=0, le=10)], ...] = Field(
        (1.0, 0.3),
        min_length=1,
        max_length=4,
        description="Weights of the gradient between regions, beside 1 - cosine: a hierarchy each, at every scale.",
    )
    color: float = Field(0.05, ge=0, le=10, description="Weight of the distance of colours.")
    size_power: float = Field(
        0.3,
        ge=0,
        le=1,
        description="Small regions join first: power of their share of the image that unlikeness takes.",
    )
    min_area: float = Field(0.001, ge=0, lt=1, description="Smallest mask, as a share of the image.")
    max_area: float = Field(0.9, gt=0, le=1, description="Largest mask, as a share of the image.")
    iou_threshold: float = Field(0.75, gt=0, le=1, description="Overlap with a better mask above which one goes.")
    max_masks: int = Field(100, ge=1, le=1000, description="Masks kept per image, best first.")
    fill: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Keep the masks of the data set given with --from, and fill up with regions of this weight.",
    )
    vectors: bool = Field(True, description="Store each region's mean feature at unit length as its seed, as fp16.")

    @model_validator(mode="after")
    def _areas_are_ordered(self) -> "MergeConfig":
        if self.max_area <= self.min_area:
            raise ValueError("merge.max_area must be above merge.min_area: raise one or lower the other")
        return self


class MergeLabelConfig(LabelConfig):
    """The whole configuration of labelling by merging."""

    features: FeaturesConfig = FeaturesConfig()
    merge: MergeConfig = MergeConfig()
    refine: RefineConfig = RefineConfig()
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
        return f"{self.features.arch}, {self.features.precision}, merged"


# patches of 14 pixels, about 32 on the shorter side
_DINOV2: dict[str, Any] = {"weights": "dinov2-s14-focus"}
_SIZE: dict[str, Any] = {"short_side": 448, "long_side": 896, "align": 14}
_SIZE_16: dict[str, Any] = {"short_side": 512, "long_side": 1024, "align": 16}

MERGE_PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "merge": {"features": _DINOV2, "decode": _SIZE},
    # small things as well, at three times the cost
    "merge-large": {"features": _DINOV2, "decode": _SIZE, "merge": {"scales": (1.0, 1.5), "side": 10}},
    # needs no weights: cells of 16 pixels, of colour and texture
    "merge-color": {"features": {"weights": "lab-color", "level": "c4"}},
    # the same grid of cells with patches of 16. Keys of DINO: LOST, section 3.1; TokenCut, section 3.2
    "merge-dino": {"features": {"weights": "dino-s16", "take": "keys"}, "decode": _SIZE_16},
    "merge-dinov3": {"features": {"weights": "dinov3-s16"}, "decode": _SIZE_16},
}
