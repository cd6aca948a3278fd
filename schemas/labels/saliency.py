"""Configuration of the saliency producer: validated once, frozen, unknown keys refused.

Every field says why it exists and in what unit. Where papers and codes disagree, the presets below carry their
choices.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ..section import FREE, Precision, Section, auto, since
from .base import LabelConfig, RefineConfig

Level = Literal["c3", "c4", "c5"]


class FeaturesConfig(Section):
    """The frozen backbone."""

    weights: str = Field(
        "densecl-r50-in1k-200ep",
        description="A weights file, or a registered name (`saliency-prompt weights list`).",
        json_schema_extra=FREE,  # their digest counts
    )
    arch: (
        Literal[
            "auto",
            "resnet18",
            "resnet34",
            "resnet50",
            "resnet101",
            "resnext50_32x4d",
            "resnext101_32x8d",
            "resnext101_64x4d",
            "swin_t",
            "swin_s",
            "swin_b",
            "swin_v2_t",
            "swin_v2_s",
            "swin_v2_b",
            "lab-color",
        ]
        | Annotated[str, Field(pattern=r"^(timm:[\w.]+|transformers:\S+)$")]
    ) = Field(
        "auto",
        description="Backbone, of ours, `timm:NAME` or `transformers:NAME`; auto reads it off the weights.",
        json_schema_extra=auto("arch"),
    )
    stride_in_1x1: bool = Field(
        False,
        description="True for caffe-style weights, whose stride sits on the 1x1 convolution of each block.",
    )
    level: Level = Field(
        "c5", description="Feature map the seeds live on: strides 8, 16 and 32; c5 is the only one of a ViT."
    )
    layer: int = Field(
        -1,
        ge=-64,
        lt=64,
        description="Block of a ViT, 0 being the first and -1 the last.",
        json_schema_extra=since("0.2"),
    )
    take: Literal["tokens", "block", "keys"] = Field(
        "tokens",
        description="Of that block: its normalised output, its output, or the keys of its attention.",
        json_schema_extra=since("0.2"),
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the `random` weights, the lower bound of comparisons.")
    precision: Precision = Field(
        "auto",
        description="Backbone arithmetic; auto takes bf16 where the hardware has it. Similarities are fp32.",
        json_schema_extra=auto("precision"),
    )
    batch_size: int = Field(
        0,
        ge=0,
        le=512,
        description="Images per forward pass, all of one shape; 0 picks by device when planning.",
        json_schema_extra=auto("batch_size"),
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
    pad_to: int = Field(
        1,
        ge=1,
        le=64,
        description="Pad images at the right and bottom to multiples of so many pixels, 32 as UPLVP does; 1: do not.",
        json_schema_extra=since("0.2"),
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

    min_score: float | None = Field(
        0.7, ge=0, le=1, description="Smallest score after NMS (codes): a strict NMS, as duplicates lose theirs."
    )
    min_maskness: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Smallest maskness, before NMS (thesis, section 6.3.1: 0.7): duplicates are left to NMS.",
        json_schema_extra=since("0.2"),
    )
    min_center_y: float | None = Field(
        0.2,
        ge=0,
        le=1,
        description="Masks centred above this fraction of the height are taken for sky or ceiling.",
    )
    max_width: float | None = Field(
        0.95, gt=0, le=1, description="Masks at least this fraction of the width are taken for background."
    )
    max_rim: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Masks with a larger share of their cells in the outermost ring of the grid are the border of the "
        "picture, which some backbones see; null takes what is registered for the weights, 1 leaves all.",
        json_schema_extra=since("0.2") | auto("max_rim"),
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


class Config(LabelConfig):
    """The whole configuration of a pseudo-label run."""

    features: FeaturesConfig = FeaturesConfig()
    saliency: SaliencyConfig = SaliencyConfig()
    normalize: NormalizeConfig = NormalizeConfig()
    threshold: ThresholdConfig = ThresholdConfig()
    nms: NmsConfig = NmsConfig()
    filters: FiltersConfig = FiltersConfig()
    prompts: PromptsConfig = PromptsConfig()
    refine: RefineConfig = Field(RefineConfig(), description="Edges of the photograph.", json_schema_extra=since("0.2"))
    encode: EncodeConfig = EncodeConfig()

    @model_validator(mode="after")
    def _photographs_are_not_padded(self) -> "Config":
        if self.saliency.pad_to > 1 and self.refine.radius:
            raise ValueError("edges of padded images are not refined: set saliency.pad_to = 1 or refine.radius = 0")
        return self

    @property
    def compression_level(self) -> int:
        """See `LabelConfig`."""
        return self.encode.compression_level

    @property
    def batch_size(self) -> int:
        """See `LabelConfig`."""
        return self.features.batch_size

    @property
    def words(self) -> str:
        """See `LabelConfig`."""
        return f"{self.features.arch}, {self.features.precision}"


# Differences from the defaults; a config file and `--set` come on top of them.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    # Saliency Prompt with the steps and thresholds of FreeSOLO's code, where its text is silent
    "saliency-prompt": {},
    # Free Mask as FreeSOLO's code is configured: the same steps on ResNet-101 (the thesis: ResNet-50 unless specified)
    "freesolo": {"features": {"weights": "densecl-r101-in1k-200ep"}},
    # the CVPR 2023 text taken at its word: one pooled grid, dot products, one range per image (footnote 3),
    # plain mask NMS, and no filter that the text does not mention
    "paper-literal": {
        "saliency": {"seeding": "grid", "similarity": "dot"},
        "normalize": {"scope": "image"},
        "nms": {"kind": "greedy"},
        "filters": {"min_score": None, "min_center_y": None, "max_width": None},
    },
    # the authors' later code base: input stretched and padded, a lower centre filter, never an empty image
    "uplvp": {
        "decode": {"keep_ratio": False},
        "saliency": {"pad_to": 32},
        "filters": {"min_center_y": 0.1, "max_width": None, "keep_best": True},
    },
}
