"""Everything that tells one member of the family from another. Meanings, ranges: `schemas/training/solo.py`."""

from dataclasses import dataclass
from typing import Literal

from ..nms import Suppression
from .targets import Collision

Ranges = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Options:
    """Of the model, its losses and its inference; the defaults are SOLOv2's (thesis, section 4.2)."""

    head: Literal["solo", "decoupled", "dynamic"] = "dynamic"
    channels: int = 256
    width: int = 512
    depth: int = 4
    groups: int = 32
    single_level: bool = False
    align: Literal["interpolate", "adaptive_max", "region"] = "interpolate"
    coord_layers: int = 1
    shared_tower: bool = False
    coord_order: Literal["paper", "code"] = "paper"
    coords: Literal["none", "kernel", "feature", "both"] = "both"
    kernel_channels: int = 256
    kernel_size: Literal[1, 3] = 1
    mask_feature: Literal["unified", "separate"] = "unified"
    feature_width: int = 128
    feature_groups: int = 32
    deform: Literal["none", "last", "all"] = "none"
    deform_backbone: bool = False
    embedding: int = 0  # channels of each cell's vector; 0 is none

    grids: tuple[int, ...] = (40, 36, 24, 16, 12)
    ranges: Ranges = ((1, 96), (48, 192), (96, 384), (192, 768), (384, 2048))
    center: float = 0.2
    collision: Collision = "smallest"
    contours: bool = False
    mask_loss: Literal["dice", "bce", "focal"] = "dice"
    mask_weight: float | None = None
    class_weight: float = 1.0

    class_score: float = 0.1
    candidates: int = 500
    mask_threshold: float = 0.5
    nms: Suppression = "matrix"
    nms_kernel: Literal["gaussian", "linear"] = "gaussian"
    gaussian_coeff: float = 2.0
    nms_iou: float = 0.5
    min_score: float = 0.05

    @property
    def scales(self) -> Ranges:
        """Ranges of object scales by level; the ends are open, so that no object is without a level."""
        ranges = [(0.0, 0.0)] * len(self.grids) if self.single_level else [*self.ranges]
        ranges[0] = (0.0, ranges[0][1])
        ranges[-1] = (ranges[-1][0], float("inf"))
        return tuple(ranges)
