"""UniLSeg: its configuration and presets (Liu et al., Universal Segmentation at Arbitrary Granularity)."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ..load import SHOW, load_settings
from ..section import FREE, Section, since
from .sections import Fraction, Preset, TrainerConfig

Form = Literal["paper", "code", "none"]
Depths = tuple[Annotated[int, Field(ge=1, le=64)], ...]


class TaskData(Section):
    """A data set of another task, as `evaluate --task` takes it."""

    task: Literal["semantic", "salient", "part", "rvos"] = Field(description="What its labels are.")
    images: str = Field(description="Folder of the photographs, or of the videos' frames.", json_schema_extra=FREE)
    gt: str = Field(
        description="Folder of label images; COCO file of parts; meta_expressions.json of videos.",
        json_schema_extra=FREE,
    )
    classes: str = Field("", description="Names of the classes, one a line.", json_schema_extra=FREE)
    zero_is_nothing: bool = Field(False, description="Class numbers count from 1; 0 has no class.")
    annotations: str = Field("", description="Of videos: folder of palette PNGs.", json_schema_extra=FREE)


class ReferringData(Section):
    """From photographs and expressions to batches."""

    side: int = Field(
        480, ge=32, le=2048, multiple_of=32, description="Photographs are fitted into squares of so many pixels."
    )
    batch_size: int = Field(64, ge=1, le=65536, description="Pairs per optimizer step, over all processes.")
    balance: float = Field(
        0.5, ge=0, le=1, description="A source is drawn from in proportion to its pairs to this power; 1 is by pairs."
    )
    drop_lowest: float = Field(
        20.0,
        ge=0,
        lt=100,
        description="Of a data set of pairs, per cent with the lowest text scores that are left out, by source.",
    )
    hide: Fraction = Field(0.2, description="Hide and seek: probability that a patch is hidden; 0 is without.")
    hide_patches: tuple[Annotated[int, Field(ge=0, le=1024)], ...] = Field(
        (0, 16, 32, 44, 56),
        min_length=1,
        description="Sides of its patches to draw from, in pixels of the square; 0 hides nothing.",
    )
    split: str = Field("", description="Of references that name splits: the one to train on; empty takes all.")
    tasks: tuple[TaskData, ...] = Field(
        (),
        description="Data sets of other tasks to train on as well; each is a source of its own.",
        json_schema_extra=since("0.2"),
    )
    workers: int = Field(
        2, ge=0, le=256, description="Processes that read and decode; 0 does it between steps.", json_schema_extra=FREE
    )
    max_pixels: int = Field(100_000_000, ge=1, le=2**30, description="Largest image decoded, in pixels.")


class SwinSection(Section):
    """The image encoder; the defaults are Swin-B's."""

    width: int = Field(128, ge=8, le=512, multiple_of=8, description="Channels at stride 4; they double thrice.")
    depths: Depths = Field((2, 2, 18, 2), min_length=4, max_length=4, description="Blocks of each stage.")
    heads: Depths = Field((4, 8, 16, 32), min_length=4, max_length=4, description="Heads of each stage.")
    window: int = Field(7, ge=1, le=32, description="Side of an attention window, in cells.")
    drop_path: float = Field(0.2, ge=0, lt=1, description="Probability that training skips the last block.")


class TextSection(Section):
    """The text encoder; the defaults are CLIP ViT-B/16's."""

    vocabulary: str = Field(
        "learned",
        description="File of CLIP's merges (txt, txt.gz); `learned` makes merges of the expressions trained on.",
    )
    merges: int = Field(2000, ge=0, le=48894, description="Merges to learn, at most (vocabulary = learned).")
    length: int = Field(17, ge=3, le=77, description="Tokens of a text, marks included; longer ones are cut.")
    width: int = Field(512, ge=8, le=4096, description="Width.")
    layers: int = Field(12, ge=1, le=64, description="Layers.")
    heads: int = Field(8, ge=1, le=64, description="Heads.")
    hidden: int = Field(2048, ge=8, le=16384, description="Width of the feed-forward layers.")
    projection: int = Field(512, ge=8, le=4096, description="Width of sentences.")
    context: int = Field(77, ge=3, le=1024, description="Places that have a position.")


class UniLSegSection(Section):
    """The model. `paper` is what is written, `code` what was released; `none` leaves a part out (Table 8)."""

    host: Literal["unilseg"] = Field("unilseg", description="Which model.")
    prefusion: Form = Field("paper", description="Words into the image encoder's maps.")
    vision_path: Form = Field("paper", description="From fused maps to pixel embeddings.")
    language_path: Form = Field("paper", description="From sentence and map to the kernel of a mask.")
    channels: int = Field(512, ge=16, le=4096, multiple_of=8, description="Width of the vision path.")
    embedding: int = Field(256, ge=16, le=4096, multiple_of=8, description="Width of pixels and kernels.")
    hidden: int = Field(2048, ge=16, le=16384, description="Width of the feed-forward layers.")
    swin: SwinSection = SwinSection()
    text: TextSection = TextSection()

    @model_validator(mode="after")
    def _fits(self) -> "UniLSegSection":
        if self.text.width % self.text.heads:
            raise ValueError("model.text.width is not a multiple of model.text.heads: change one of them")
        if any(self.swin.width * 2**i % heads for i, heads in enumerate(self.swin.heads)):
            raise ValueError("model.swin.heads must divide the channels of their stages: change heads or width")
        if self.text.length > self.text.context:
            raise ValueError("model.text.length is above model.text.context: lower it")
        return self


class ReferringLoss(Section):
    """Weights of the losses."""

    cross_entropy: float = Field(1.0, ge=0, le=100, description="Of pixels.")
    dice: float = Field(1.0, ge=0, le=100, description="Of masks.")


class UniLSegTrainer(TrainerConfig):
    """The loop; with `pretrain_epochs` it has two stages, the first on data sets of pairs alone."""

    max_epochs: int = Field(15, ge=1, le=100_000, description="Epochs of the second stage: as many pairs as there are.")
    decay_at: tuple[Fraction, ...] = Field(
        (2 / 3,), description="Shares of the second stage after which the rate falls to a tenth."
    )
    lr_batch: int = Field(64, ge=1, le=65536, description="Batch size that `lr` is meant for.")
    backbone_lr: float = Field(0.1, ge=0, le=10, description="Factor on the image encoder's rate; text trains at full.")
    weight_decay: float = Field(0.0, ge=0, le=1, description="Weight decay; 0 is the paper's Adam.")
    warmup_steps: int = Field(0, ge=0, le=1_000_000, description="Steps in which the rate grows from a thousandth.")
    pretrain_epochs: int = Field(0, ge=0, le=100_000, description="Epochs of the first stage.")
    pretrain_lr: float = Field(5e-5, gt=0, le=1, description="Its rate.")


class UniLSegTraining(Section):
    """The whole configuration of a run."""

    data: ReferringData = ReferringData()
    model: UniLSegSection = UniLSegSection()
    loss: ReferringLoss = ReferringLoss()
    trainer: UniLSegTrainer = UniLSegTrainer()

    @model_validator(mode="after")
    def _batches_fit(self) -> "UniLSegTraining":
        batch, parts = self.data.batch_size, self.trainer.accumulate
        if batch % parts:
            raise ValueError(
                f"data.batch_size = {batch} is not a multiple of trainer.accumulate = {parts}: change one of them"
            )
        return self


_TWO_STAGES = {"pretrain_epochs": 5, "pretrain_lr": 5e-5, "max_epochs": 15, "lr": 1e-4}
UNILSEG_PRESETS: dict[str, Preset] = {
    # UniLSeg, section 4.1; -20 and -100 are per cent of SA-1B in the first stage: the data differ, not the model.
    # 192 x 8 images a step there; that of the second stage is unsaid, and the same here.
    "unilseg-20": {"data": {"batch_size": 1536}, "trainer": {**_TWO_STAGES, "lr_batch": 1536}},
    "unilseg-100": {"data": {"batch_size": 1536}, "trainer": {**_TWO_STAGES, "lr_batch": 1536}},
    # small images and a small model: for a look at the machinery, on a CPU
    "tiny": {
        "data": {"batch_size": 16, "side": 64, "hide": 0.0, "workers": 0},
        "model": {
            "prefusion": "code",
            "channels": 64,
            "embedding": 64,
            "hidden": 128,
            "swin": {"width": 32, "depths": [1, 1, 1, 1], "heads": [2, 2, 4, 4], "window": 4, "drop_path": 0.0},
            "text": {
                "width": 64,
                "layers": 2,
                "heads": 4,
                "hidden": 128,
                "projection": 64,
                "length": 20,
                "context": 24,
            },
        },
        "trainer": {"lr": 1e-3, "lr_batch": 16, "backbone_lr": 1.0, "warmup_steps": 50, "max_epochs": 10},
    },
}


def load_unilseg_config(
    preset: str | None = None, file: str | None = None, overrides: Iterable[str] = ()
) -> UniLSegTraining:
    """Defaults, then the preset, then the file, then `section.field=value` overrides; UserError for mistakes."""
    return load_settings(UniLSegTraining, UNILSEG_PRESETS, preset or "unilseg-20", file, overrides, f"{SHOW} unilseg")
