"""QueryInst: its own settings and presets (Fang et al., ICCV 2021; Saliency Prompt's in pre-training)."""

from typing import Literal

from pydantic import Field

from ..section import Section, since
from .sections import CITYSCAPES, DetectorSection, Preset, PromptConfig, PromptedConfig, SupervisedConfig, TrainerConfig


class QueryInstSection(DetectorSection):
    """The model."""

    host: Literal["queryinst"] = Field("queryinst", description="Which model.")
    queries: int = Field(100, ge=1, le=2000, description="Objects it can find in an image; 300 in the strong setting.")
    channels: int = Field(256, ge=32, le=1024, multiple_of=32, description="Width of pyramid and queries.")
    stages: int = Field(6, ge=1, le=12, description="Rounds of refinement.")
    hidden: int = Field(2048, ge=32, le=16384, description="Width of the feed-forward layers.")
    dynamic_channels: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Inner width of the dynamic convolutions; null is a quarter of channels.",
        json_schema_extra=since("0.2"),
    )
    mask_logits: Literal["fresh", "repeat"] = Field(
        "fresh",
        description="At fine-tuning, each class's mask layer begins anew, or as the one that pre-training made.",
        json_schema_extra=since("0.2"),
    )


class QueryInstLoss(Section):
    """Weights of the losses."""

    classes: float = Field(2.0, ge=0, le=100, description="Focal loss of classes.")
    l1: float = Field(5.0, ge=0, le=100, description="Distance of boxes, in shares of the image.")
    giou: float = Field(2.0, ge=0, le=100, description="Generalised IoU of boxes.")
    mask: float = Field(8.0, ge=0, le=100, description="Dice loss of masks in boxes.")


_TRAINER = TrainerConfig(lr=1e-4, backbone_lr=0.1, clip=0.1, weight_decay=1e-4)


class QueryInstTraining(SupervisedConfig):
    """Training on labels."""

    model: QueryInstSection = QueryInstSection()
    loss: QueryInstLoss = QueryInstLoss()
    trainer: TrainerConfig = _TRAINER


class QueryInstPretraining(PromptedConfig):
    """Training with prompts."""

    model: QueryInstSection = QueryInstSection()
    loss: QueryInstLoss = QueryInstLoss()
    trainer: TrainerConfig = _TRAINER
    prompt: PromptConfig = PromptConfig(dropout=0.05)


_TRAINER_VALUES = {"backbone_lr": 0.1, "clip": 0.1, "weight_decay": 1e-4}
_TINY: Preset = {
    "data": {"batch_size": 4, "short_side": 128, "long_side": 192},
    "model": {"freeze": "all", "queries": 20, "channels": 64, "hidden": 128, "stages": 3},
    "trainer": {**_TRAINER_VALUES, "lr": 2e-4, "lr_batch": 4, "warmup_steps": 20, "clip": 1.0},
}

# 96 images a step, flipped and rotated (Saliency Prompt, section 4.1)
_SP_TRAINER = {**_TRAINER_VALUES, "lr_batch": 96, "warmup_steps": 100}
_SP_DATA = {"batch_size": 96, "rotate": 9.0}
FINETUNE: dict[str, Preset] = {
    "default": {"trainer": _TRAINER_VALUES},
    "sp-coco": {
        "data": _SP_DATA,
        "trainer": {**_SP_TRAINER, "max_epochs": 48, "decay_at": [0.75, 11 / 12]},
    },
    "sp-cityscapes": {
        "data": {**_SP_DATA, **CITYSCAPES},
        "trainer": {**_SP_TRAINER, "max_epochs": 24, "decay_at": [0.75, 11 / 12]},
    },
    # from a pre-trained model (Table 3); without one, four times the epochs
    "sp-ctw1500": {
        "data": _SP_DATA,
        "trainer": {**_SP_TRAINER, "max_epochs": 20, "decay_at": [0.6, 0.9]},
    },
    "tiny": _TINY,
}
PRETRAIN: dict[str, Preset] = {
    "sp-coco": {
        "data": {"batch_size": 96},
        "trainer": {**_TRAINER_VALUES, "lr_batch": 96},
        "prompt": {"dropout": 0.05},
    },
    "tiny": {**_TINY, "prompt": {"dropout": 0.05}},
}
