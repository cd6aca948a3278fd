"""The one configuration object: validated once, frozen, unknown keys refused.

Every field says why it exists and in what unit. Where papers and codes disagree, the presets in
`presets.py` carry their choices.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Level = Literal["c3", "c4", "c5"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]

STRIDES: dict[str, int] = {"c3": 8, "c4": 16, "c5": 32}  # image pixels per feature cell


class Section(BaseModel):
    """Base of all sections: frozen, and a misspelt key is an error rather than ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PlanConfig(Section):
    """How the inputs are cut into units of work, retry and commit."""

    shard_size: int = Field(
        1024,
        ge=1,
        le=65536,
        description="Images per shard; aim at 10 to 120 s of work, so that a retry is cheap.",
    )


class DecodeConfig(Section):
    """From bytes to a resized RGB image, with every limit checked before memory is spent."""

    short_side: int = Field(
        800, ge=32, le=8192, description="Shorter side after resizing, in pixels: sets the grid's resolution."
    )
    long_side: int = Field(
        1333, ge=32, le=16384, description="Upper bound of the longer side after resizing, in pixels."
    )
    keep_ratio: bool = Field(
        True,
        description="False stretches every image to long_side x short_side (width x height), as UPLVP does.",
    )
    align: int = Field(
        1,
        ge=1,
        le=64,
        description="Round resized sides to a multiple, in pixels: 1 is exact; 32 makes fewer shapes, larger batches.",
    )
    exif: Literal["ignore", "apply"] = Field(
        "ignore", description="EXIF rotation: COCO sizes and masks refer to the stored, unrotated pixels."
    )
    min_side: int = Field(8, ge=1, description="Images with a shorter side, in pixels, hold nothing to segment.")
    max_pixels: int = Field(
        100_000_000,
        ge=1,
        le=2**30,
        description="Largest image decoded, in pixels: read from the header, before decoding.",
    )
    max_bytes: int = Field(200_000_000, ge=1, description="Largest file decoded, in bytes.")


class FeaturesConfig(Section):
    """The frozen backbone."""

    weights: str = Field(
        "densecl-r50-in1k-200ep",
        description="A weights file, or a registered name (`saliency-prompt weights list`).",
    )
    arch: Literal[
        "auto",
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
        "resnext50_32x4d",
        "resnext101_32x8d",
        "resnext101_64x4d",
        "lab-color",
    ] = Field("auto", description="Backbone; auto reads it off the weights.")
    stride_in_1x1: bool = Field(
        False,
        description="True for caffe-style weights, whose stride sits on the 1x1 convolution of each block.",
    )
    level: Level = Field("c5", description="Feature map the seeds live on: strides 8, 16 and 32.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the `random` weights, the lower bound of comparisons.")
    precision: Precision = Field(
        "auto",
        description="Backbone arithmetic; auto takes bf16 where the hardware has it. Similarities are fp32.",
    )
    batch_size: int = Field(
        0,
        ge=0,
        le=512,
        description="Images per forward pass, all of one shape; 0 picks by device when planning.",
    )


class SaliencyConfig(Section):
    """Seeds and their similarity maps (Saliency Prompt Eq. 3; FreeSOLO Eq. 6.1-6.2)."""

    seeding: Literal["pyramid", "grid"] = Field(
        "pyramid",
        description="Bilinear pyramid of the feature map, or one average-pooled grid (the paper's text).",
    )
    scales: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (1.0, 0.5, 0.25),
        min_length=1,
        max_length=8,
        description="Pyramid scales, as fractions of the feature map.",
    )
    grid: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = Field(
        None,
        description="Grid rows and columns for seeding = grid; none means half the feature map, rounded up.",
    )
    similarity: Literal["cosine", "dot"] = Field(
        "cosine", description="Dot products make cells with large features bright for every seed."
    )


class NormalizeConfig(Section):
    """Scaling of similarities to 0..1."""

    scope: Literal["map", "image"] = Field(
        "map",
        description="Minimum and maximum over each map, or over all maps of the image (the paper's footnote 3).",
    )
    eps: float = Field(1e-6, gt=0, le=1e-2, description="Smallest range divided by: a constant map gives no mask.")


class ThresholdConfig(Section):
    """From soft maps to binary masks with a maskness score."""

    tau: float = Field(0.5, gt=0, lt=1, description="A cell belongs to the mask from this saliency on.")
    min_cells: int = Field(2, ge=1, description="Smallest mask on the grid, in cells.")


class NmsConfig(Section):
    """Removal of duplicates on the feature grid."""

    kind: Literal["matrix", "greedy"] = Field("matrix", description="Matrix NMS decays scores; greedy removes masks.")
    kernel: Literal["gaussian", "linear"] = Field("gaussian", description="Decay of matrix NMS.")
    gaussian_coeff: float = Field(
        2.0,
        gt=0,
        le=100,
        description="c in exp(-c IoU^2): multiplied, as all codes do, not divided as SOLOv2 prints.",
    )
    iou_threshold: float = Field(0.5, gt=0, le=1, description="Overlap above which greedy NMS removes a mask.")
    max_masks: int = Field(20, ge=1, le=1000, description="Masks kept per image, best first.")


class FiltersConfig(Section):
    """Filters on the kept masks; null switches one off. The position filters suit everyday photographs only."""

    min_score: float | None = Field(0.7, ge=0, le=1, description="Smallest score after NMS.")
    min_center_y: float | None = Field(
        0.2,
        ge=0,
        le=1,
        description="Masks centred above this fraction of the height are taken for sky or ceiling.",
    )
    max_width: float | None = Field(
        0.95, gt=0, le=1, description="Masks at least this fraction of the width are taken for background."
    )
    min_area: int = Field(1, ge=1, description="Smallest mask in the stored image, in pixels.")
    keep_best: bool = Field(False, description="Keep an image's best mask when the filters would leave none (UPLVP).")


class PromptsConfig(Section):
    """Vectors stored for each mask (Saliency Prompt Eq. 5 and S_l of Eq. 9), fp16."""

    seed: bool = Field(True, description="Unit-length seed vector that produced the mask: target of the kernel loss.")
    box_mean: bool = Field(True, description="Mean feature in the mask's tight box on the grid: prompt of its query.")


class EncodeConfig(Section):
    """What is written, and how."""

    saliency: bool = Field(False, description="Also store the soft maps of the kept masks, as bytes on the grid.")
    compression_level: int = Field(1, ge=1, le=19, description="zstd level of parquet and zarr files.")


class Config(Section):
    """The whole configuration of a pseudo-label run."""

    plan: PlanConfig = PlanConfig()
    decode: DecodeConfig = DecodeConfig()
    features: FeaturesConfig = FeaturesConfig()
    saliency: SaliencyConfig = SaliencyConfig()
    normalize: NormalizeConfig = NormalizeConfig()
    threshold: ThresholdConfig = ThresholdConfig()
    nms: NmsConfig = NmsConfig()
    filters: FiltersConfig = FiltersConfig()
    prompts: PromptsConfig = PromptsConfig()
    encode: EncodeConfig = EncodeConfig()

    @model_validator(mode="after")
    def _sides_are_ordered(self) -> "Config":
        if self.decode.long_side < self.decode.short_side:
            raise ValueError("decode.long_side is below decode.short_side: raise one or lower the other")
        return self
