"""Configuration of pre-training and fine-tuning a query-based model, and its presets (METHOD 2.8-2.9)."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from .load import load_settings
from .section import Precision, Section

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=10)]


class DataConfig(Section):
    """From files to batches."""

    short_side: int = Field(800, ge=32, le=4096, description="Shorter side of a training image, in pixels.")
    long_side: int = Field(1333, ge=32, le=8192, description="Upper bound of its longer side, in pixels.")
    batch_size: int = Field(16, ge=1, le=4096, description="Images per optimizer step, over all processes.")
    flip: Fraction = Field(0.5, description="Probability of a mirrored image; 0 where left and right differ (text).")
    rotate: float = Field(0.0, ge=0, le=180, description="Largest rotation, in degrees.")
    rotate_probability: Fraction = Field(0.5, description="Probability of a rotation, if there is any.")
    jitter: tuple[Positive, Positive] | None = Field(
        None, description="Large-scale jitter: range of factors on the side, then a crop to short_side; null: none."
    )
    min_score: Fraction = Field(0.0, description="Pseudo-masks below this score are not trained on.")
    min_area: Fraction = Field(0.0, description="Nor are smaller ones, as a share of the image.")
    max_masks: int = Field(100, ge=1, le=10_000, description="Pseudo-masks of an image, best first.")
    repeat: int = Field(1, ge=1, le=1000, description="Passes over the images in what counts as an epoch.")
    workers: int = Field(2, ge=0, le=256, description="Processes that read and decode; 0 does it between steps.")
    max_pixels: int = Field(100_000_000, ge=1, le=2**30, description="Largest image decoded, in pixels.")

    @model_validator(mode="after")
    def _ordered(self) -> "DataConfig":
        if self.jitter is not None and self.jitter[0] > self.jitter[1]:
            raise ValueError("data.jitter must go from a smaller to a larger factor: write it as [low, high]")
        if self.short_side > self.long_side:
            raise ValueError("data.short_side is above data.long_side: lower it or raise that")
        return self


class HostConfig(Section):
    """The query-based model."""

    host: Literal["knet"] = Field("knet", description="Which model.")
    queries: int = Field(100, ge=1, le=2000, description="Objects it can find in an image.")
    channels: int = Field(256, ge=32, le=1024, multiple_of=32, description="Width of pyramid and queries.")
    stages: int = Field(3, ge=1, le=12, description="Rounds of refinement.")
    hidden: int = Field(2048, ge=32, le=16384, description="Width of the feed-forward layers.")
    stride_in_1x1: bool = Field(
        False, description="The backbone's weights are caffe-style: stride on the 1x1 convolutions."
    )
    freeze: Literal["none", "stem", "all"] = Field(
        "stem",
        description="Backbone parameters that stay: the first layers (conv1 to layer1), or all. Norms always stay.",
    )


class PromptConfig(Section):
    """Saliency Prompt; of pre-training alone."""

    assigner: Literal["none", "random", "sequential", "cosine"] = Field(
        "cosine", description="Which prompt a query gets (paper: Table 5)."
    )
    match_on: Literal["initial", "assembled"] = Field(
        "initial", description="Match against the learned queries (paper) or those with object features (code)."
    )
    inject_at: Literal["after_head", "before_head"] = Field(
        "after_head", description="Add prompts after the first masks were made (code), or before."
    )
    dropout: Fraction = Field(0.1, description="Probability that a query goes without its prompt (K-Net: 0.1).")
    kernel_weight: float = Field(1.0, ge=0, le=100, description="Weight of the kernel loss (Eq. 9); 0 is without.")
    target: Literal["learned", "fixed"] = Field(
        "learned", description="Projection of seed vectors: trained (paper; may collapse) or random orthogonal."
    )


class LossConfig(Section):
    """Weights of the losses."""

    classes: float = Field(2.0, ge=0, le=100, description="Focal loss of classes.")
    dice: float = Field(4.0, ge=0, le=100, description="Dice loss of masks.")
    mask: float = Field(1.0, ge=0, le=100, description="Cross-entropy of pixels.")
    semantic: float = Field(1.0, ge=0, le=100, description="Focal loss of the semantic map.")


class TrainerConfig(Section):
    """The loop around it."""

    max_epochs: int = Field(12, ge=1, le=100_000, description="Passes over the images.")
    steps: tuple[Fraction, ...] = Field(
        (2 / 3, 11 / 12), description="The rate falls to a tenth after these shares of all epochs."
    )
    lr: float = Field(1e-4, gt=0, le=1, description="Learning rate at `lr_batch` images a step, scaled linearly.")
    lr_batch: int = Field(16, ge=1, le=4096, description="Batch size that `lr` is meant for.")
    backbone_lr: float = Field(0.25, ge=0, le=10, description="Factor on the backbone's rate.")
    weight_decay: float = Field(0.05, ge=0, le=1, description="Decay of AdamW.")
    warmup_steps: int = Field(1000, ge=0, le=1_000_000, description="Steps in which the rate grows from a thousandth.")
    clip: float = Field(1.0, ge=0, le=1000, description="Largest norm of the gradient; 0 is no limit.")
    precision: Precision = Field("auto", description="Arithmetic; auto takes bf16 where it is fast.")
    seed: int = Field(0, ge=0, lt=2**63, description="Every random number derives from it.")
    log_every: int = Field(10, ge=1, le=100_000, description="Steps between entries of the curves.")
    checkpoint_every: int = Field(500, ge=1, le=1_000_000, description="Steps between checkpoints.")
    evaluate_every: int = Field(4, ge=0, le=100_000, description="Epochs between evaluations; 0 is at the end alone.")
    threshold: Fraction = Field(0.5, description="Probability from which a pixel is in a found mask.")


class InstanceConfig(Section):
    """The whole configuration of a run."""

    data: DataConfig = DataConfig()
    model: HostConfig = HostConfig()
    prompt: PromptConfig = PromptConfig()
    loss: LossConfig = LossConfig()
    trainer: TrainerConfig = TrainerConfig()

    @property
    def learning_rate(self) -> float:
        """Rate at the configured batch size."""
        return self.trainer.lr * self.data.batch_size / self.trainer.lr_batch


Preset = dict[str, dict[str, Any]]

PRETRAIN_PRESETS: dict[str, Preset] = {
    # 96 images a step, frozen backbone, random flips alone (Saliency Prompt, section 4.1)
    "sp-coco": {"data": {"batch_size": 96}, "trainer": {"lr_batch": 96}, "model": {"freeze": "all"}},
    # small images and a small model: for a look at the machinery, on a CPU
    "tiny": {
        "data": {"batch_size": 4, "short_side": 128, "long_side": 192},
        "model": {"freeze": "all", "queries": 20, "channels": 64, "hidden": 128},
        "trainer": {"lr": 2e-4, "lr_batch": 4, "warmup_steps": 20, "backbone_lr": 0.0},
    },
}

FINETUNE_PRESETS: dict[str, Preset] = {
    "sp-coco": {
        "data": {"batch_size": 96, "rotate": 9.0},
        "trainer": {"max_epochs": 48, "steps": [0.75, 11 / 12], "lr_batch": 96, "warmup_steps": 100, "clip": 4.0},
    },
    "sp-cityscapes": {
        "data": {"batch_size": 16, "repeat": 8, "short_side": 1024, "long_side": 2048},
        "trainer": {"max_epochs": 24, "steps": [2 / 3, 11 / 12]},
    },
    "sp-ctw1500": {
        "data": {"batch_size": 16, "flip": 0.0},
        "trainer": {"max_epochs": 92, "steps": [72 / 92, 88 / 92]},
    },
    "tiny": {
        "data": {"batch_size": 4, "short_side": 128, "long_side": 192},
        "model": {"queries": 20, "channels": 64, "hidden": 128},
        "trainer": {"lr": 2e-4, "lr_batch": 4, "warmup_steps": 20},
    },
}


def load_instance_config(
    presets: dict[str, Preset], preset: str = "sp-coco", file: str | None = None, overrides: Iterable[str] = ()
) -> InstanceConfig:
    """Defaults, then the preset, then the file, then `section.field=value` overrides; UserError for mistakes."""
    return load_settings(InstanceConfig, presets, preset, file, overrides)
