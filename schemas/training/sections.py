"""What configurations of models that find instances have in common."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ..section import FREE, Precision, Section, since

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=10)]
Preset = dict[str, dict[str, Any]]

# Training images of Cityscapes, by data.*: several scales, and eight passes in what counts as an epoch
CITYSCAPES: dict[str, Any] = {
    "repeat": 8,
    "short_side": 1024,
    "long_side": 2048,
    "short_sides": [800, 832, 864, 896, 928, 960, 992, 1024],
}


class DataConfig(Section):
    """From files to batches."""

    short_side: int = Field(800, ge=32, le=4096, description="Shorter side of a training image, in pixels.")
    long_side: int = Field(1333, ge=32, le=8192, description="Upper bound of its longer side, in pixels.")
    short_sides: tuple[Annotated[int, Field(ge=32, le=4096)], ...] = Field(
        (),
        description="Multi-scale training: short sides to draw from, in pixels; empty takes short_side.",
        json_schema_extra=since("0.2"),
    )
    keep_ratio: bool = Field(
        True,
        description="False stretches every image to long_side x short_side (width x height), as UPLVP does.",
        json_schema_extra=since("0.2"),
    )
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
    repeat_threshold: Fraction = Field(
        0.0,
        description="Images of rarer categories than this share of the images are drawn more often (LVIS: 0.001).",
        json_schema_extra=since("0.2"),
    )
    repeat: int = Field(1, ge=1, le=1000, description="Passes over the images in what counts as an epoch.")
    workers: int = Field(
        2, ge=0, le=256, description="Processes that read and decode; 0 does it between steps.", json_schema_extra=FREE
    )
    max_pixels: int = Field(100_000_000, ge=1, le=2**30, description="Largest image decoded, in pixels.")

    @model_validator(mode="after")
    def _ordered(self) -> "DataConfig":
        if self.jitter is not None and self.jitter[0] > self.jitter[1]:
            raise ValueError("data.jitter must go from a smaller to a larger factor: write it as [low, high]")
        if max(self.short_side, *self.short_sides, 0) > self.long_side:
            raise ValueError("data.short_side or data.short_sides is above data.long_side: lower it or raise that")
        if self.jitter is not None and self.short_sides:
            raise ValueError("data.jitter draws scales itself: leave data.short_sides empty with it")
        return self


class DetectorSection(Section):
    """Of any model: its name, and what becomes of its backbone."""

    host: str = Field(description="Which model.")
    stride_in_1x1: bool = Field(
        False, description="The backbone's weights are caffe-style: stride on the 1x1 convolutions."
    )
    freeze: Literal["none", "stem", "all"] = Field(
        "stem",
        description="Backbone parameters that stay: the first layers, or all. Batch norms always stay.",
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
    scale: Literal["none", "match"] = Field(
        "none",
        description="Prompts as pooled, or each as long as the query it is added to.",
        json_schema_extra=since("0.2"),
    )
    levels: Literal["one", "multi"] = Field(
        "one",
        description="Pool prompts from the coarsest map (code), or from the one that fits the box.",
        json_schema_extra=since("0.2"),
    )
    pooling: Literal["box", "masked_mean"] = Field(
        "box", description="Pool a prompt over its box (paper) or under its mask.", json_schema_extra=since("0.2")
    )
    cells: Literal["touched", "floor"] = Field(
        "touched",
        description="Cells of a box: all that it touches, or its corners rounded down (code).",
        json_schema_extra=since("0.2"),
    )

    @model_validator(mode="after")
    def _can_be_matched(self) -> "PromptConfig":
        if self.inject_at == "before_head" and self.match_on == "assembled":
            raise ValueError(
                "prompt.match_on = assembled needs queries that do not exist before the head: set prompt.match_on to "
                "initial or prompt.inject_at to after_head"
            )
        return self


class TrainerConfig(Section):
    """The loop around it."""

    max_epochs: int = Field(12, ge=1, le=100_000, description="Passes over the images.")
    accumulate: int = Field(
        1,
        ge=1,
        le=4096,
        description="Parts a step's batch is computed in: more parts need less memory.",
        json_schema_extra=since("0.2"),
    )
    optimizer: Literal["adamw", "sgd"] = Field(
        "adamw", description="AdamW, or SGD with momentum.", json_schema_extra=since("0.2")
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD.", json_schema_extra=since("0.2"))
    schedule: Literal["steps", "cosine", "poly", "constant"] = Field(
        "steps",
        description="How the rate falls: to tenths at decay_at, along a cosine or (1 - share) ** 0.9, or not.",
        json_schema_extra=since("0.2"),
    )
    decay_at: tuple[Fraction, ...] = Field(
        (2 / 3, 11 / 12), description="Shares of all epochs after which the rate falls to a tenth (schedule=steps)."
    )
    decay_norms: bool = Field(
        True,
        description="Weight decay on normalisation layers and learned embeddings too; Mask2Former goes without.",
        json_schema_extra=since("0.2"),
    )
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of itself that an averaged model keeps per step, say 0.999; 0 is none.",
        json_schema_extra=since("0.2"),
    )
    lr: float = Field(1e-4, gt=0, le=1, description="Learning rate at `lr_batch` images a step, scaled linearly.")
    lr_batch: int = Field(16, ge=1, le=4096, description="Batch size that `lr` is meant for.")
    backbone_lr: float = Field(0.25, ge=0, le=10, description="Factor on the backbone's rate.")
    weight_decay: float = Field(0.05, ge=0, le=1, description="Weight decay of all that is trained.")
    warmup_steps: int = Field(1000, ge=0, le=1_000_000, description="Steps in which the rate grows from a thousandth.")
    clip: float = Field(1.0, ge=0, le=1000, description="Largest norm of the gradient; 0 is no limit.")
    precision: Precision = Field("auto", description="Arithmetic; auto takes bf16 where it is fast.")
    seed: int = Field(0, ge=0, lt=2**63, description="Every random number derives from it.")
    log_every: int = Field(
        10, ge=1, le=100_000, description="Steps between entries of the curves.", json_schema_extra=FREE
    )
    checkpoint_every: int = Field(
        500, ge=1, le=1_000_000, description="Steps between checkpoints.", json_schema_extra=FREE
    )
    evaluate_every: int = Field(
        4, ge=0, le=100_000, description="Epochs between evaluations; 0 is at the end alone.", json_schema_extra=FREE
    )
    threshold: Fraction = Field(0.5, description="Probability from which a pixel is in a found mask.")
    max_detections: int | None = Field(
        None,
        ge=11,
        le=1000,
        description="Instances of an image, best first, that are found and judged (LVIS: 300); null takes 100, or as "
        "many as the model has queries.",
        json_schema_extra=since("0.2"),
    )

    @model_validator(mode="before")
    @classmethod
    def _old_name(cls, values: Any) -> Any:
        """`decay_at` was called `steps`, and cards, files and scripts say so."""
        if isinstance(values, dict) and "steps" in values:
            values = {**values, "decay_at": values["steps"]}
            del values["steps"]
        return values


class SupervisedConfig(Section):
    """The whole configuration of a run; a model adds what is its own."""

    data: DataConfig = DataConfig()
    model: DetectorSection
    trainer: TrainerConfig = TrainerConfig()

    @model_validator(mode="after")
    def _batches_fit(self) -> "SupervisedConfig":
        batch, parts = self.data.batch_size, self.trainer.accumulate
        if batch % parts:
            raise ValueError(
                f"data.batch_size = {batch} is not a multiple of trainer.accumulate = {parts}: change one of them"
            )
        return self

    @property
    def learning_rate(self) -> float:
        """Rate at the configured batch size."""
        return self.trainer.lr * self.data.batch_size / self.trainer.lr_batch


class PromptedConfig(SupervisedConfig):
    """With Saliency Prompt: pre-training of a query-based model."""

    prompt: PromptConfig = PromptConfig()
