"""Configuration of DenseCL training: sections like those of the main job, its presets, and how it is loaded.

Defaults are the published COCO recipe (thesis section 5.3: SGD 0.3, batch 256, 800 epochs).
"""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ..load import SHOW, load_settings
from ..section import FREE, Precision, Section

Fraction = Annotated[float, Field(ge=0, le=1)]


class PhotosConfig(Section):
    """From files to squares of bytes; views are cut from these on the device."""

    side: int = Field(
        320,
        ge=32,
        le=2048,
        description="Photographs are stretched to squares of so many pixels once; the crops undo the stretching.",
    )
    max_pixels: int = Field(100_000_000, ge=1, le=2**30, description="Largest image decoded, in pixels.")
    max_bytes: int = Field(200_000_000, ge=1, description="Largest file decoded, in bytes.")
    cache_gb: float = Field(
        2.0,
        ge=0,
        le=4096,
        description="Keep decoded squares in memory if all fit into so many GB (10^9 bytes).",
        json_schema_extra=FREE,
    )
    workers: int = Field(
        -1,
        ge=-1,
        le=256,
        description="Processes that read and decode; 0 does it between steps, -1 picks by device.",
        json_schema_extra=FREE,
    )


class AugmentConfig(Section):
    """The two views of a photograph (MoCo-v2's augmentation)."""

    size: int = Field(224, ge=32, le=1024, description="Side of a view, in pixels.")
    scale: tuple[Fraction, Fraction] = Field((0.2, 1.0), description="Area of a crop, as a fraction of the image.")
    jitter: Fraction = Field(0.8, description="Probability of colour jitter.")
    brightness: Fraction = Field(0.4, description="Largest relative change of brightness.")
    contrast: Fraction = Field(0.4, description="Largest relative change of contrast.")
    saturation: Fraction = Field(0.4, description="Largest relative change of saturation.")
    hue: float = Field(0.1, ge=0, le=0.5, description="Largest change of hue, in turns of the colour circle.")
    grey: Fraction = Field(0.2, description="Probability of a grey view.")
    blur: Fraction = Field(0.5, description="Probability of Gaussian blur.")
    blur_sigma: tuple[Annotated[float, Field(gt=0, le=100)], Annotated[float, Field(gt=0, le=100)]] = Field(
        (0.1, 2.0), description="Range of the blur's standard deviation, in pixels of the view; suits 224."
    )
    flip: Fraction = Field(0.5, description="Probability of a mirrored view; 0 where left and right differ (text).")

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> "AugmentConfig":
        for name, (low, high) in (("scale", self.scale), ("blur_sigma", self.blur_sigma)):
            if low > high or high <= 0:
                raise ValueError(f"augment.{name} must go from a smaller to a larger number: write it as [low, high]")
        if self.scale[0] <= 0:
            raise ValueError("augment.scale must start above 0: a crop without area shows nothing")
        return self


class ModelConfig(Section):
    """Encoders, queues, correspondence."""

    arch: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = Field("resnet50", description="Backbone.")
    init: str | None = Field(
        None, description="Weights to start from (file or registered name); null starts from random ones."
    )
    grid: int = Field(
        0, ge=0, le=32, description="Dense projections live on an S x S grid, in cells; 0 takes the backbone's own."
    )
    matching: Literal["max-sim-features", "max-sim-theta", "random"] = Field(
        "max-sim-features", description="Which cells of two views correspond: by backbone features, as published."
    )
    queue: int = Field(65536, ge=2, le=2**22, description="Negatives in each queue, in keys.")
    key_momentum: float = Field(0.999, ge=0, lt=1, description="Share of itself the key encoder keeps per step.")
    tau: float = Field(0.2, gt=0, le=10, description="Temperature of both losses.")
    dense_weight: Fraction = Field(
        0.5, description="lambda: share of the dense loss, the rest is global; 0 is MoCo-v2 and has no dense head."
    )
    warmup_steps: int = Field(
        0, ge=0, description="Steps with lambda = 0 at the start (10000 in the thesis, for lambda = 1)."
    )
    bn_splits: int = Field(
        0,
        ge=0,
        le=1024,
        description="Parts of a process's batch normalised separately; 0 is one per 32 images on one process.",
    )


class OptimConfig(Section):
    """SGD with cosine decay to zero, no warm-up of the rate."""

    epochs: int = Field(800, ge=1, le=1_000_000, description="Passes over the photographs.")
    batch_size: int = Field(256, ge=2, le=65536, description="Images per optimizer step, over all processes.")
    accumulate: int = Field(
        1, ge=1, le=4096, description="Parts a step's batch is computed in: more parts need less memory."
    )
    lr: float = Field(
        0.3, gt=0, le=100, description="Learning rate at 256 images per step; scaled linearly with batch_size."
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD.")
    weight_decay: float = Field(1e-4, ge=0, le=1, description="Weight decay of all parameters.")


class TrainConfig(Section):
    """The loop around it."""

    seed: int = Field(0, ge=0, lt=2**63, description="Every random number derives from it.")
    precision: Precision = Field("auto", description="Arithmetic of the encoders; auto takes bf16 where it is fast.")
    log_every: int = Field(
        10, ge=1, le=100_000, description="Optimizer steps between entries of the curves.", json_schema_extra=FREE
    )
    checkpoint_every: int = Field(
        500, ge=1, le=1_000_000, description="Optimizer steps between checkpoints.", json_schema_extra=FREE
    )


class DenseCLConfig(Section):
    """The whole configuration of a training run."""

    photos: PhotosConfig = PhotosConfig()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _batches_fit(self) -> "DenseCLConfig":
        batch, accumulate = self.optim.batch_size, self.optim.accumulate
        if batch % accumulate:
            raise ValueError(
                f"optim.batch_size = {batch} is not a multiple of optim.accumulate = {accumulate}: change one of them"
            )
        part, queue = batch // accumulate, self.model.queue
        if queue % part:
            lengths = " or ".join(str(n) for n in (queue // part * part, queue // part * part + part) if n)
            raise ValueError(
                f"model.queue = {queue} is not a multiple of the {part} keys that one step puts in "
                f"(optim.batch_size / optim.accumulate): set model.queue to {lengths}, or change the batch"
            )
        return self

    @property
    def dense(self) -> bool:
        """Whether there is a dense head; without one this is MoCo-v2."""
        return self.model.dense_weight > 0

    @property
    def learning_rate(self) -> float:
        """Initial rate at the configured batch size."""
        return self.optim.lr * self.optim.batch_size / 256

    def weight(self, step: int) -> float:
        """Lambda at an optimizer step."""
        return 0.0 if step < self.model.warmup_steps else self.model.dense_weight


_MINI: dict[str, dict[str, Any]] = {
    "photos": {"side": 160},
    "augment": {"size": 128, "blur_sigma": [0.1, 1.1]},
    "model": {"arch": "resnet18", "queue": 8192, "key_momentum": 0.99, "warmup_steps": 1640},
    "optim": {"epochs": 40, "batch_size": 64, "lr": 0.3},
    "train": {"precision": "bf16"},
}

# the smallest crop, a fifth of the area, then has 224 pixels a side, as in a stored photograph of that size
_SHARP = {"side": 512}

DENSECL_PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    # the published recipe for COCO
    "densecl": {"photos": _SHARP},
    # the published recipe for ImageNet
    "densecl-imagenet": {"photos": _SHARP, "optim": {"epochs": 200, "lr": 0.03}},
    # the global loss alone, everything else equal
    "moco-v2": {"photos": _SHARP, "model": {"dense_weight": 0.0}},
    # a small network on small views, for five thousand photographs: the global loss alone for the first half;
    # 70 minutes of one CPU core with bf16
    "mini": _MINI,
    "mini-moco-v2": {**_MINI, "model": {**_MINI["model"], "dense_weight": 0.0}},
}


def load_densecl_config(
    preset: str = "densecl", file: str | None = None, overrides: Iterable[str] = ()
) -> DenseCLConfig:
    """Defaults, then the preset, then the file, then `section.field=value` overrides; UserError for mistakes."""
    return load_settings(DenseCLConfig, DENSECL_PRESETS, preset, file, overrides, f"{SHOW} densecl")
