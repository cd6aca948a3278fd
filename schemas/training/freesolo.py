"""Configuration of FreeSOLO: training on coarse masks without classes (thesis, Deep Object Segmentation, chapter 6)."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ..section import Section
from .sections import DataConfig, Preset, SupervisedConfig, TrainerConfig
from .solo import SOLO_OPTIONS, Fraction, SoloConfig, Weight


class FreeSoloConfig(SoloConfig):
    """SOLOv2 with an embedding beside the class."""

    host: Literal["freesolo"] = Field("freesolo", description="Which model.")  # type: ignore[assignment]
    embedding: int = Field(
        128, ge=0, le=2048, description="Channels of each object's embedding; 0 is a model without (Table 6.7f)."
    )
    freeze: Literal["none", "stem", "all"] = Field(
        "none", description="Backbone parameters that stay; FreeSOLO trains all of them, but batch norms."
    )

    @model_validator(mode="after")
    def _compares_colours(self) -> "FreeSoloConfig":
        if self.head != "dynamic" or self.mask_feature != "unified" or self.single_level:
            raise ValueError(
                "FreeSOLO compares colours at stride 4, where SOLOv2's masks are: set head to dynamic, mask_feature "
                "to unified and single_level to false"
            )
        if self.contours:
            raise ValueError("FreeSOLO's losses are those of filled masks: set contours to false")
        return self


class WeakLossConfig(Section):
    """What is learned of coarse masks; each switch is a row of Table 6.7."""

    masks: Literal["weak", "full"] = Field(
        "weak", description="Projections and colours, or the whole coarse mask's Dice loss, which gives 2.4 AP for 3.3."
    )
    average: Weight = Field(0.1, description="Weight of mean projections; without them masks become outlines.")
    maximum: Weight = Field(1.0, description="Weight of maximum projections; 0 costs 0.7 AP.")
    pairwise: Weight = Field(1.0, description="Weight of the pairwise colour loss; 0 costs 1.2 AP.")
    similar: Fraction = Field(
        0.3, description="Similarity of two colours, exp(-d / 2) in CIE Lab, that makes them one."
    )
    warmup_steps: int = Field(1000, ge=0, le=1_000_000, description="Steps in which the pairwise loss comes in.")
    bottom: int = Field(
        10, ge=0, le=10_000, description="Rows at the bottom of the stored image whose colours are not compared."
    )
    reduction: Literal["per_level", "global_mean"] = Field(
        "per_level", description="Mean over each level's masks and then over levels (code), or over all at once."
    )
    embedding: Weight = Field(4.0, description="Weight of the embedding's cosine loss; the authors' code has 0.")
    round1_embedding: Literal["pool", "predicted", "off"] = Field(
        "pool",
        description="Target of the embedding on labels that a model made: the frozen backbone's mean under the mask, "
        "what that model said, or none.",
    )

    @field_validator("round1_embedding", mode="before")
    @classmethod
    def _yaml_reads_off_as_false(cls, value: Any) -> Any:
        return "off" if value is False else value


class ViewsConfig(Section):
    """What becomes of an image beside flip and scale."""

    strong: bool = Field(True, description="Train on a second view with other colours and erased patches as well.")
    paste: bool = Field(True, description="Paste objects of another image of the batch onto that view.")
    max_covered: Fraction = Field(
        0.5, description="An object that would cover so large a share of one that is there is not pasted."
    )


_TRAINER = {
    "optimizer": "sgd",
    "lr": 0.001,
    "schedule": "constant",
    "weight_decay": 1e-4,
    "backbone_lr": 1.0,
    "warmup_steps": 1000,
    "clip": 35.0,
    "max_epochs": 2,
}


class FreeSoloTraining(SupervisedConfig):
    """Training on free masks, or on the labels that such a model made."""

    data: DataConfig = DataConfig()
    model: FreeSoloConfig = FreeSoloConfig()
    trainer: TrainerConfig = TrainerConfig.model_validate(_TRAINER)
    weak: WeakLossConfig = WeakLossConfig()
    views: ViewsConfig = ViewsConfig()


# 30k steps of 16 images over 241k photographs are two epochs
FREESOLO_PRESETS: dict[str, Preset] = {
    "default": {"data": {"short_sides": [640, 672, 704, 736, 768, 800]}, "trainer": _TRAINER},
    # as the released program trains: no embedding, coordinates of the whole map, the last object has a shared cell
    "code": {
        "data": {"short_sides": [640, 672, 704, 736, 768, 800]},
        "model": {"embedding": 0, "coord_order": "code", "collision": "all"},
        "trainer": _TRAINER,
        "weak": {"embedding": 0.0},
    },
    "tiny": {
        "data": {"batch_size": 4, "short_side": 128, "long_side": 192},
        "model": {**SOLO_OPTIONS["solov2-tiny"], "embedding": 16, "freeze": "all"},
        "trainer": {**_TRAINER, "lr": 0.01, "lr_batch": 4, "warmup_steps": 20, "clip": 10.0, "max_epochs": 12},
        "weak": {"warmup_steps": 50},
    },
}
