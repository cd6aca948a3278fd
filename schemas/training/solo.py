"""Configuration of SOLO, Decoupled SOLO and SOLOv2, and their presets.

"Thesis": Wang, Deep Object Segmentation and Beyond, chapters 3 (SOLO) and 4 (SOLOv2).
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ..section import Section
from .sections import DetectorSection, Preset, SupervisedConfig, TrainerConfig

Fraction = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1000)]
Scale = Annotated[float, Field(ge=0, le=100_000)]
Grid = Annotated[int, Field(ge=1, le=256)]


class SoloConfig(DetectorSection):
    """A member of the family: its head, what it learns, and what it finds."""

    host: Literal["solo", "decoupled-solo", "decoupled-solo-light", "solov2", "solov2-light"] = Field(
        "solov2", description="Which model; its presets set what makes it that."
    )
    head: Literal["solo", "decoupled", "dynamic"] = Field(
        "dynamic", description="SOLO (a channel for each cell), Decoupled SOLO (rows and columns), SOLOv2 (kernels)."
    )
    channels: int = Field(256, ge=8, le=2048, description="Width of the pyramid.")
    width: int = Field(512, ge=8, le=2048, description="Width of the head's layers.")
    depth: int = Field(4, ge=1, le=16, description="Layers of each branch of the head; SOLO has 7.")
    groups: int = Field(32, ge=1, le=512, description="Groups of the head's normalisation, fewer where width asks.")
    single_level: bool = Field(False, description="One map at stride 8 instead of the pyramid (thesis, Table 3.2).")
    align: Literal["interpolate", "adaptive_max", "region"] = Field(
        "interpolate", description="How a map is brought to a grid's cells (thesis, section 3.3.3); within 0.1 AP."
    )
    coord_layers: int = Field(
        1, ge=0, le=16, description="Layers of SOLO's mask branch that see coordinates; without, AP falls by 3.6."
    )
    shared_tower: bool = Field(False, description="Decoupled SOLO: one mask branch for rows and columns (light).")
    coord_order: Literal["paper", "code"] = Field(
        "paper",
        description="SOLOv2's kernels: coordinates of the grid (paper) or of the map, resized (code; imports).",
    )
    coords: Literal["none", "kernel", "feature", "both"] = Field(
        "both", description="SOLOv2: which branches see coordinates (thesis, Table 4.4)."
    )
    kernel_channels: int = Field(256, ge=1, le=2048, description="SOLOv2: width of mask feature and kernels.")
    kernel_size: Literal[1, 3] = Field(1, description="SOLOv2: side of a kernel; 3 gains nothing (thesis, Table 4.3).")
    mask_feature: Literal["unified", "separate"] = Field(
        "unified", description="SOLOv2: one mask feature at stride 4, or one for each level, which costs 0.5 AP."
    )
    feature_width: int = Field(128, ge=8, le=2048, description="SOLOv2: width of the mask feature's inner layers.")
    feature_groups: int = Field(32, ge=1, le=512, description="SOLOv2: groups of its normalisation.")
    deform: Literal["none", "last", "all"] = Field(
        "none", description="Deformable layers of the head: none, each branch's last (light), or all (DCN models)."
    )
    deform_backbone: bool = Field(False, description="Deformable 3x3 convolutions in C3 to C5.")

    grids: tuple[Grid, ...] = Field(
        (40, 36, 24, 16, 12),
        min_length=1,
        max_length=5,
        description="Cells along a side, by level; `fit-grid` reads them from the objects. Fewer for few large ones.",
    )
    ranges: tuple[tuple[Scale, Scale], ...] = Field(
        ((1, 96), (48, 192), (96, 384), (192, 768), (384, 2048)),
        min_length=1,
        max_length=5,
        description="Scales of objects by level: root of the box's area, in pixels of the resized image. "
        "The first is open below, the last above, so that every object has a level.",
    )
    center: float = Field(0.2, gt=0, le=1, description="Share of a box, around the mass centre, that claims cells.")
    collision: Literal["smallest", "last", "all"] = Field(
        "smallest",
        description="Who gets a cell that objects share: the smallest, the last (SOLO's code), "
        "or the class of the last and the masks of all (SOLOv2's code).",
    )
    contours: bool = Field(False, description="Learn outlines instead of masks (thesis, section 3.1).")
    mask_loss: Literal["dice", "bce", "focal"] = Field("dice", description="Loss of masks; Dice wins by 4 to 6 AP.")
    mask_weight: Weight | None = Field(None, description="Its weight; null takes the paper's: 3, 10 or 20.")
    class_weight: Weight = Field(1.0, description="Weight of the classes' focal loss.")

    class_score: Fraction = Field(0.1, description="Cells with a class score at or below it make no mask.")
    candidates: int = Field(
        500, ge=1, le=100_000, description="Masks made of an image at most, of the best class scores; bounds memory."
    )
    mask_threshold: Fraction = Field(0.5, description="A pixel above this probability is in a mask.")
    nms: Literal["hard", "soft", "fast", "matrix"] = Field("matrix", description="Suppression (thesis, Table 4.6).")
    nms_kernel: Literal["gaussian", "linear"] = Field("gaussian", description="Decay of Matrix NMS.")
    gaussian_coeff: float = Field(2.0, gt=0, le=100, description="c of the decay exp(-c IoU^2), soft and matrix.")
    nms_iou: Fraction = Field(0.5, description="Overlap that hard and fast NMS allow.")
    min_score: Fraction = Field(0.05, description="Instances below this score after NMS are not found.")

    @model_validator(mode="after")
    def _levels_agree(self) -> "SoloConfig":
        if self.single_level:
            if len(self.grids) != 1:
                raise ValueError("a single level has one grid: set grids to [36]")
            return self
        if len(self.grids) != 5 or len(self.ranges) != 5:
            raise ValueError("grids and ranges have an entry for each of five levels: give five of both")
        if any(low >= high for low, high in self.ranges):
            raise ValueError("ranges go from a smaller to a larger scale: write each as [low, high]")
        if any(after[0] > before[1] for before, after in zip(self.ranges, self.ranges[1:], strict=False)):
            raise ValueError("ranges leave a gap in which objects have no level: let each begin before the last ends")
        return self


class PanopticConfig(Section):
    """What a panoptic model has beside instances (thesis, section 4.3.3)."""

    stuff: int = Field(0, ge=0, le=254, description="Classes of stuff; training takes them from the panoptic json.")
    semantic_weight: Weight = Field(0.5, description="Weight of the semantic branch's cross-entropy.")
    min_score: Fraction = Field(0.5, description="Instances below this score are not painted.")
    max_covered: Fraction = Field(0.5, description="An instance of which more is taken by better ones is not painted.")
    min_stuff: int = Field(4096, ge=0, le=2**30, description="Stuff of fewer pixels in an image is left void.")


class MattingConfig(Section):
    """What a matting model has beside instances (thesis, section 4.3.4)."""

    details: int = Field(32, ge=1, le=512, description="Width of the layers at full resolution; memory grows with it.")
    dice_weight: Weight = Field(3.0, description="Weight of the Dice loss of mattes.")
    mae_weight: Weight = Field(1.0, description="Weight of their mean absolute error.")
    band: int = Field(5, ge=0, le=100, description="Pixels around the edge of a binary alpha without such an error.")


class PanopticSoloConfig(SoloConfig):
    """SOLOv2 with a semantic branch."""

    host: Literal["solov2-panoptic"] = Field("solov2-panoptic", description="Which model.")  # type: ignore[assignment]
    panoptic: PanopticConfig = PanopticConfig()


class MattingSoloConfig(SoloConfig):
    """SOLOv2 with mattes."""

    host: Literal["solov2-matting"] = Field("solov2-matting", description="Which model.")  # type: ignore[assignment]
    matting: MattingConfig = MattingConfig()


class SoloTraining(SupervisedConfig):
    """Training on labels."""

    model: SoloConfig = SoloConfig()
    trainer: TrainerConfig = TrainerConfig(
        optimizer="sgd", lr=0.01, weight_decay=1e-4, backbone_lr=1.0, warmup_steps=500, clip=35.0
    )


class PanopticSoloTraining(SoloTraining):
    """Training on panoptic annotations."""

    model: PanopticSoloConfig = PanopticSoloConfig()


class MattingSoloTraining(SoloTraining):
    """Training on mattes, from a run of SOLOv2."""

    model: MattingSoloConfig = MattingSoloConfig()


Options = dict[str, object]

_LIGHT_RANGES = ((1, 56), (28, 112), (56, 224), (112, 448), (224, 896))
_LIGHT_512_RANGES = ((1, 64), (32, 128), (64, 256), (128, 512), (256, 2048))
_TINY: Options = {
    "channels": 32,
    "width": 32,
    "depth": 2,
    "kernel_channels": 32,
    "feature_width": 32,
    "grids": (12, 10, 8, 6, 4),
    "ranges": ((1, 24), (12, 48), (24, 96), (48, 192), (96, 512)),
}
_SOLO: Options = {"head": "solo", "width": 256, "depth": 7}
_DECOUPLED: Options = {"head": "decoupled", "width": 256, "depth": 7}
_DECOUPLED_LIGHT: Options = {
    "head": "decoupled",
    "width": 256,
    "shared_tower": True,
    "ranges": _LIGHT_512_RANGES,
}
_SOLOV2_LIGHT: Options = {"width": 256, "depth": 2, "kernel_channels": 128, "ranges": _LIGHT_RANGES}

SOLO_OPTIONS: dict[str, Options] = {
    "solo": _SOLO,
    # short side 512 (thesis, Table 3.6)
    "solo-512": {**_SOLO, "ranges": _LIGHT_512_RANGES},
    "decoupled-solo": _DECOUPLED,
    "decoupled-solo-light": _DECOUPLED_LIGHT,
    "solov2": {},
    # short side 448 (thesis, section 4.3.1)
    "solov2-light": _SOLOV2_LIGHT,
    # short side 512, deformable
    "solov2-light-512": {
        **_SOLOV2_LIGHT,
        "depth": 3,
        "ranges": _LIGHT_512_RANGES,
        "deform": "last",
        "deform_backbone": True,
    },
    # a small model for small images: for a look at the machinery, on a CPU
    "solo-tiny": {**_SOLO, **_TINY},
    "decoupled-solo-tiny": {**_DECOUPLED, **_TINY},
    "decoupled-solo-light-tiny": {**_DECOUPLED_LIGHT, **_TINY},
    "solov2-tiny": _TINY,
    "solov2-light-tiny": {**_SOLOV2_LIGHT, **_TINY, "kernel_channels": 16},
}

# SGD 0.01 for 16 images; 36 epochs with several scales, or 12 with one (SOLO, section 4; SOLOv2, section 4.1)
_SGD = {"optimizer": "sgd", "lr": 0.01, "weight_decay": 1e-4, "backbone_lr": 1.0, "warmup_steps": 500, "clip": 35.0}
_LONG = {**_SGD, "max_epochs": 36, "decay_at": [0.75, 33 / 36]}
_SIDES = [640, 672, 704, 736, 768, 800]
_SHORT = {**_SGD, "lr": 0.01, "lr_batch": 4, "warmup_steps": 20, "clip": 10.0}


def presets(name: str) -> dict[str, Preset]:
    """Those of one member of the family."""
    options, tiny = {"host": name, **SOLO_OPTIONS[name]}, {"host": name, **SOLO_OPTIONS[f"{name}-tiny"]}
    small = {"batch_size": 4, "short_side": 128, "long_side": 192}
    found: dict[str, Preset] = {
        "default": {"data": {"short_sides": _SIDES}, "model": options, "trainer": _LONG},
        "1x": {"model": options, "trainer": {**_SGD, "decay_at": [0.75, 11 / 12]}},
    }
    if name == "solov2-light":
        found["default"]["data"] = {
            "short_side": 448,
            "long_side": 768,
            "short_sides": [256, 288, 320, 352, 384, 416, 448],
        }
        found["512"] = {
            "data": {"short_side": 512, "long_side": 852, "short_sides": [352, 384, 416, 448, 480, 512]},
            "model": {"host": name, **SOLO_OPTIONS["solov2-light-512"]},
            "trainer": _LONG,
        }
    if name == "decoupled-solo-light":
        found["default"]["data"] = {"short_side": 512, "long_side": 852, "short_sides": [352, 384, 416, 448, 480, 512]}
    return {**found, "tiny": {"data": small, "model": {**tiny, "freeze": "all"}, "trainer": _SHORT}}


def _renamed(name: str, own: dict[str, Preset]) -> dict[str, Preset]:
    """SOLOv2's presets under another name, with more of its own on top."""
    return {
        preset: {**one, "model": {**one["model"], "host": name, **own.get(preset, {})}}
        for preset, one in presets("solov2").items()
    }


PANOPTIC_PRESETS = _renamed("solov2-panoptic", {"tiny": {"panoptic": {"min_stuff": 256}}})
MATTING_PRESETS = _renamed("solov2-matting", {"tiny": {"matting": {"details": 8}}})
