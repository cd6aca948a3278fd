"""Mask2Former: its own settings and presets (Cheng et al., CVPR 2022; Saliency Prompt's in pre-training)."""

from typing import Literal

from pydantic import Field

from ..section import Section, since
from .sections import DetectorSection, Preset, PromptConfig, PromptedConfig, SupervisedConfig, TrainerConfig


class Mask2FormerSection(DetectorSection):
    """The model."""

    host: Literal["mask2former"] = Field("mask2former", description="Which model.")
    queries: int = Field(100, ge=1, le=2000, description="Objects it can find in an image.")
    channels: int = Field(256, ge=32, le=1024, multiple_of=32, description="Width of pixel decoder and queries.")
    stages: int = Field(9, ge=1, le=30, description="Layers of the decoder; three look at one level each in turn.")
    hidden: int = Field(2048, ge=32, le=16384, description="Width of the decoder's feed-forward layers.")
    encoder_stages: int = Field(6, ge=1, le=24, description="Layers of the pixel decoder.")
    encoder_hidden: int = Field(1024, ge=32, le=16384, description="Width of the pixel decoder's feed-forward layers.")
    encoder_points: int = Field(
        4,
        ge=1,
        le=64,
        description="Places that a head of the pixel decoder looks at on each level.",
        json_schema_extra=since("0.2"),
    )


class Mask2FormerLoss(Section):
    """Weights of the losses, and the points at which masks are compared."""

    classes: float = Field(2.0, ge=0, le=100, description="Cross-entropy of classes.")
    mask: float = Field(5.0, ge=0, le=100, description="Cross-entropy of points.")
    dice: float = Field(5.0, ge=0, le=100, description="Dice loss of points.")
    points: int = Field(12544, ge=16, le=1 << 20, description="Points that stand for a mask: 112 x 112, as published.")


_TRAINER = TrainerConfig(lr=1e-4, backbone_lr=0.1, clip=0.01, warmup_steps=10, decay_norms=False)


class Mask2FormerTraining(SupervisedConfig):
    """Training on labels."""

    model: Mask2FormerSection = Mask2FormerSection()
    loss: Mask2FormerLoss = Mask2FormerLoss()
    trainer: TrainerConfig = _TRAINER


class Mask2FormerPretraining(PromptedConfig):
    """Training with prompts."""

    model: Mask2FormerSection = Mask2FormerSection()
    loss: Mask2FormerLoss = Mask2FormerLoss()
    trainer: TrainerConfig = _TRAINER
    prompt: PromptConfig = PromptConfig(dropout=0.05)


_TRAINER_VALUES = {"backbone_lr": 0.1, "clip": 0.01, "warmup_steps": 10, "decay_norms": False}
_JITTER = {"short_side": 1024, "long_side": 1024, "jitter": [0.1, 2.0]}
_TINY: Preset = {
    "data": {"batch_size": 4, "short_side": 128, "long_side": 192},
    "model": {
        "queries": 20,
        "channels": 64,
        "hidden": 128,
        "stages": 3,
        "encoder_stages": 2,
        "encoder_hidden": 128,
        "freeze": "all",
    },
    "loss": {"points": 1024},
    "trainer": {"lr": 2e-4, "lr_batch": 4, "warmup_steps": 20, "clip": 1.0, "backbone_lr": 0.1, "decay_norms": False},
}

# 96 images a step, flipped and rotated (Saliency Prompt, section 4.1)
_SP_TRAINER = {**_TRAINER_VALUES, "lr_batch": 96, "warmup_steps": 100}
_SP_DATA = {"batch_size": 96, "rotate": 9.0}
FINETUNE: dict[str, Preset] = {
    # 50 epochs of large-scale jitter, the whole backbone trained
    "default": {
        "data": _JITTER,
        "model": {"freeze": "none"},
        "trainer": {**_TRAINER_VALUES, "max_epochs": 50, "decay_at": [0.889, 0.963]},
    },
    "sp-coco": {
        "data": {**_JITTER, **_SP_DATA},
        "model": {"freeze": "none"},
        "trainer": {**_SP_TRAINER, "max_epochs": 48, "decay_at": [0.75, 11 / 12]},
    },
    # large-scale jitter takes the place of several scales
    "sp-cityscapes": {
        "data": {**_JITTER, **_SP_DATA, "repeat": 8},
        "model": {"freeze": "none"},
        "trainer": {**_SP_TRAINER, "max_epochs": 24, "decay_at": [0.75, 11 / 12]},
    },
    # from a pre-trained model (Table 3); without one, four times the epochs
    "sp-ctw1500": {
        "data": _SP_DATA,
        "model": {"freeze": "none"},
        "trainer": {**_SP_TRAINER, "max_epochs": 20, "decay_at": [0.6, 0.9]},
    },
    "tiny": _TINY,
}
PRETRAIN: dict[str, Preset] = {
    # the backbone is frozen, its statistics included; 12 epochs
    "sp-coco": {
        "data": {**_JITTER, "batch_size": 96},
        "model": {"freeze": "all"},
        "trainer": {**_TRAINER_VALUES, "lr_batch": 96, "warmup_steps": 1000},
        "prompt": {"dropout": 0.05},
    },
    "tiny": {**_TINY, "prompt": {"dropout": 0.05}},
}
