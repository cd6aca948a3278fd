"""Configuration of the ncut producer: normalised cuts of the features' affinities."""

from typing import Any, Literal

from pydantic import Field

from ..section import Section
from .base import LabelConfig, RefineConfig
from .detector import PackConfig
from .saliency import FeaturesConfig


class CutConfig(Section):
    """The graph, and how often it is cut."""

    kind: Literal["mask", "one"] = Field(
        "mask", description="Cut an object a round (MaskCut), or once, every connected part being an object."
    )
    tau: float = Field(0.15, gt=-1, lt=1, description="Cells are alike from this cosine on, for kind = mask.")
    rounds: int = Field(3, ge=1, le=20, description="Objects at most, for kind = mask.")
    neighbours: int = Field(
        10, ge=1, le=200, description="Nearest cells that set a cell's temperature, for kind = one."
    )
    sharpening: float = Field(
        0.5, ge=0, le=10, description="How much of its gradient is taken off the map, for kind = one."
    )
    max_cells: int = Field(
        2500, ge=16, le=16384, description="Largest grid that is cut; above, features are averaged. Memory: its square."
    )
    min_cells: int = Field(4, ge=1, description="Smallest object, in cells.")
    max_masks: int = Field(20, ge=1, le=1000, description="Masks kept per image, best first.")


class NcutLabelConfig(LabelConfig):
    """The whole configuration of labelling by normalised cuts."""

    features: FeaturesConfig = FeaturesConfig()
    cut: CutConfig = CutConfig()
    refine: RefineConfig = RefineConfig(radius=16)
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
        return f"{self.features.arch}, {self.features.precision}, {self.cut.kind} cut"


_DECODE: dict[str, Any] = {"short_side": 448, "long_side": 896, "align": 14}
NCUT_PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    # tokens of DINOv2 are more alike than the keys of DINO: of .15, .3, .4 and .6, the last was best on photographs
    "maskcut": {
        "features": {"weights": "dinov2-s14-focus"},
        "decode": _DECODE,
        "cut": {"tau": 0.6, "rounds": 5},
    },
    "onecut": {"features": {"weights": "dinov2-s14-focus"}, "decode": _DECODE, "cut": {"kind": "one"}},
    # the paper's own setting: DINO ViT-B/8, 480 x 480, keys
    "cutler": {
        "features": {"weights": "dino-b8", "take": "keys"},
        "decode": {"short_side": 480, "long_side": 480, "keep_ratio": False, "align": 8},
        "cut": {"max_cells": 3600},
    },
}
