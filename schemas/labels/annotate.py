"""Configuration of the annotation engine: photographs to masks with texts (UniLSeg, section 3.3)."""

from typing import Any, Literal

from pydantic import Field, model_validator

from ..section import FREE, Precision, Section, auto, since
from .base import DecodeConfig, LabelConfig
from .detector import PackConfig

Branch = Literal["unlabelled", "boxes", "tags", "masks"]
Step = Literal["caption", "refer", "ground", "segment", "match"]
STEPS: dict[Branch, tuple[Step, ...]] = {
    "unlabelled": ("caption", "refer", "match"),
    "boxes": ("segment", "caption", "match"),
    "tags": ("ground", "segment", "match"),
    "masks": ("caption", "match"),
}
_NAME = "A folder, or a name on the Hugging Face hub (`name@revision`)"


class AnnotateDecodeConfig(DecodeConfig):
    """As photographs are decoded for any producer, at a size that segmenters are made for."""

    short_side: int = Field(1024, ge=32, le=8192, description="Upper bound of the shorter side, in pixels.")
    long_side: int = Field(1024, ge=32, le=16384, description="Longer side after resizing, in pixels.")


class RolesConfig(Section):
    """The models, by role; their digests are part of what a data set is, their names are not."""

    tagger: str = Field(
        "openai/clip-vit-base-patch16",
        description=f"{_NAME}: CLIP or SigLIP, which picks tags of `tags.vocabulary` (the paper has RAM).",
        json_schema_extra=FREE,
    )
    box_detector: str = Field(
        "IDEA-Research/grounding-dino-base", description=f"{_NAME}: Grounding DINO.", json_schema_extra=FREE
    )
    mask_segmenter: str = Field(
        "facebook/sam-vit-huge",
        description=f"{_NAME}: SAM, SAM 2 or SAM 3, prompted with boxes; or an ONNX file (`.onnx`).",
        json_schema_extra=FREE,
    )
    captioner: str = Field(
        "Salesforce/blip-image-captioning-large",
        description=f"{_NAME}: BLIP or Florence-2; empty takes names of boxes' categories.",
        json_schema_extra=FREE,
    )
    matcher: str = Field(
        "openai/clip-vit-base-patch16",
        description=f"{_NAME}: CLIP or SigLIP, which scores pairs; empty stores NaN.",
        json_schema_extra=FREE,
    )


class EngineConfig(Section):
    """What the engine does."""

    branch: Branch = Field(
        "unlabelled",
        description="unlabelled: caption, then its mask. boxes: mask and caption of each. tags: mask of each tag. "
        "masks: captions of the masks of another data set.",
    )
    steps: tuple[Step, ...] = Field(
        (),
        description="Steps of the branch that are done here, in order; empty does all. Those before were done --from.",
        json_schema_extra=since("0.2"),
    )
    precision: Precision = Field(
        "auto",
        description="Arithmetic of the models; auto takes bf16 where the hardware has it.",
        json_schema_extra=auto("precision"),
    )
    batch_size: int = Field(
        0,
        ge=0,
        le=512,
        description="Photographs at once; 0 picks by device when planning.",
        json_schema_extra=auto("batch_size"),
    )
    threshold: float = Field(0.5, gt=0, lt=1, description="A pixel belongs to the mask above this probability.")
    largest: float = Field(0.95, gt=0, le=1, description="Masks over this share of the photograph are no pairs.")
    caption_tokens: int = Field(32, ge=1, le=512, description="Tokens of a caption, at most.")
    caption_words: int = Field(60, ge=1, le=10_000, description="Words of a text that are stored, at most.")

    @property
    def doing(self) -> tuple[Step, ...]:
        """The steps that are done here."""
        return self.steps or STEPS[self.branch]

    @property
    def makes_pairs(self) -> bool:
        """Whether all is there in the end; a score may be missing."""
        return self.doing[-1] in STEPS[self.branch][-2:]

    @model_validator(mode="after")
    def _follow_each_other(self) -> "EngineConfig":
        whole = STEPS[self.branch]
        parts = {whole[i:j] for i in range(len(whole)) for j in range(i, len(whole) + 1)}
        if self.steps not in parts:
            raise ValueError(
                f"annotate.steps of {self.branch} are {', '.join(whole)}: take some that follow each other"
            )
        return self


class BoxesConfig(Section):
    """Of the branch `boxes`."""

    gt: str = Field("", description="COCO annotations with a box for each object.", json_schema_extra=FREE)
    min_side: int = Field(32, ge=1, le=4096, description="Boxes with a shorter side, in pixels, are passed over.")
    on_crop: bool = Field(False, description="The segmenter sees the box's crop alone, rather than the photograph.")


class TagsConfig(Section):
    """Of the branch `tags`."""

    vocabulary: str = Field("", description="File of tags, one a line.", json_schema_extra=FREE)
    most: int = Field(10, ge=1, le=1000, description="Tags of a photograph, at most.")
    min_score: float = Field(0.02, ge=0, le=1, description="Smallest probability of a tag among all tags.")
    prompt: str = Field("a photo of a {}", description="What the tagger reads for a tag.")
    box: float = Field(0.25, ge=0, le=1, description="Smallest score of a box.")
    nms: float = Field(0.5, ge=0, le=1, description="Of two boxes of a tag that overlap more (IoU), the better stays.")

    @model_validator(mode="after")
    def _has_a_place(self) -> "TagsConfig":
        if self.prompt.count("{}") != 1:
            raise ValueError("tags.prompt needs one {} where the tag goes: write it as 'a photo of a {}'")
        return self


class AnnotateConfig(LabelConfig):
    """The whole configuration of the annotation engine."""

    decode: AnnotateDecodeConfig = AnnotateDecodeConfig()
    annotate: EngineConfig = EngineConfig()
    roles: RolesConfig = RolesConfig()
    boxes: BoxesConfig = BoxesConfig()
    tags: TagsConfig = TagsConfig()
    encode: PackConfig = PackConfig()

    @property
    def compression_level(self) -> int:
        """See `LabelConfig`."""
        return self.encode.compression_level

    @property
    def batch_size(self) -> int:
        """See `LabelConfig`."""
        return self.annotate.batch_size

    @property
    def needs_parent(self) -> bool:
        """See `LabelConfig`."""
        return self.annotate.branch == "masks" or self.annotate.doing[0] != STEPS[self.annotate.branch][0]

    @property
    def words(self) -> str:
        """See `LabelConfig`."""
        return f"the annotation engine, {self.annotate.precision}"


ANNOTATE_PRESETS: dict[str, dict[str, dict[str, Any]]] = {"annotate": {}}
ANNOTATE_COLUMNS = {
    "texts": "list<string>",
    "text_scores": "list<float>",  # raw cosines; NaN without a matcher
    "label": "int32",  # the tag's place in the vocabulary, -1 for none
    "tag": "string",
    "boxes": "list<float>",  # XYXY of the prompts that made the mask, in pixels of the stored photograph
    "detector_score": "float32",
    "segmenter_iou": "float32",
}
