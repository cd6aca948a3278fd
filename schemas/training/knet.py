"""K-Net: its own settings, and the presets of Saliency Prompt's experiments with it."""

from typing import Literal

from pydantic import Field

from ..section import Section
from .sections import CITYSCAPES, DetectorSection, Preset, PromptedConfig, SupervisedConfig


class KNetSection(DetectorSection):
    """The model."""

    host: Literal["knet"] = Field("knet", description="Which model.")
    queries: int = Field(100, ge=1, le=2000, description="Objects it can find in an image.")
    channels: int = Field(256, ge=32, le=1024, multiple_of=32, description="Width of pyramid and queries.")
    stages: int = Field(3, ge=1, le=12, description="Rounds of refinement.")
    hidden: int = Field(2048, ge=32, le=16384, description="Width of the feed-forward layers.")
    norm_groups: int = Field(
        32,
        ge=1,
        le=1024,
        description="Groups of group norms; version 0.1 had channels / 4, at most 32.",
    )


class KNetLoss(Section):
    """Weights of the losses."""

    classes: float = Field(2.0, ge=0, le=100, description="Focal loss of classes.")
    dice: float = Field(4.0, ge=0, le=100, description="Dice loss of masks.")
    mask: float = Field(1.0, ge=0, le=100, description="Cross-entropy of pixels.")
    semantic: float = Field(1.0, ge=0, le=100, description="Focal loss of the semantic map.")


class KNetTraining(SupervisedConfig):
    """Training on labels."""

    model: KNetSection = KNetSection()
    loss: KNetLoss = KNetLoss()


class KNetPretraining(PromptedConfig):
    """Training with prompts."""

    model: KNetSection = KNetSection()
    loss: KNetLoss = KNetLoss()


PRETRAIN: dict[str, Preset] = {
    # 96 images a step, frozen backbone, random flips alone (Saliency Prompt, section 4.1)
    "sp-coco": {"data": {"batch_size": 96}, "trainer": {"lr_batch": 96}, "model": {"freeze": "all"}},
    # what the authors' later code does: images stretched to 1333 x 800 and padded to a multiple of 32, few flips, boxes
    # rounded down to cells, prompts matched against assembled kernels
    "uplvp": {
        "data": {"batch_size": 96, "flip": 0.1, "keep_ratio": False},
        "model": {"freeze": "all"},
        "trainer": {"lr_batch": 96},
        "prompt": {"cells": "floor", "match_on": "assembled", "inject_at": "after_head"},
    },
    # small images, a small model, and a backbone that stays, which more than halves a step: for a CPU
    "tiny": {
        "data": {"batch_size": 4, "short_side": 128, "long_side": 192},
        "model": {"freeze": "all", "queries": 20, "channels": 64, "hidden": 128},
        "trainer": {"lr": 2e-4, "lr_batch": 4, "warmup_steps": 20, "backbone_lr": 0.0},
    },
}

# Saliency Prompt, section 4.1: 96 images a step, flipped and rotated at random, on every data set. The angle, the
# schedule within the epochs and Cityscapes' eight passes an epoch are its code's.
FINETUNE: dict[str, Preset] = {
    "sp-coco": {
        "data": {"batch_size": 96, "rotate": 9.0},
        "trainer": {"max_epochs": 48, "decay_at": [0.75, 11 / 12], "lr_batch": 96, "warmup_steps": 100, "clip": 4.0},
    },
    # tested at 1024 x 2048
    "sp-cityscapes": {
        "data": {"batch_size": 96, "rotate": 9.0, **CITYSCAPES},
        "trainer": {"max_epochs": 24, "decay_at": [2 / 3, 11 / 12], "lr_batch": 96, "warmup_steps": 100},
    },
    # tested at --short-side 1600 --long-side 1600
    "sp-ctw1500": {
        "data": {"batch_size": 96, "rotate": 9.0},
        "trainer": {"max_epochs": 96, "decay_at": [0.75, 11 / 12], "lr_batch": 96, "warmup_steps": 100},
    },
    "tiny": {
        "data": {"batch_size": 4, "short_side": 128, "long_side": 192},
        "model": {"freeze": "all", "queries": 20, "channels": 64, "hidden": 128},
        "trainer": {"lr": 2e-4, "lr_batch": 4, "warmup_steps": 20},
    },
}
