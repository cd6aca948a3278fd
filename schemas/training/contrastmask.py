"""Configuration of Mask R-CNN and of ContrastMask, which is Mask R-CNN with a contrastive head, and their presets.

Defaults are the papers' (He et al., Mask R-CNN; Lin et al., FPN; Wang et al., ContrastMask, section 4).
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ..section import Section
from .sections import DetectorSection, Preset, SupervisedConfig, TrainerConfig

Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, lt=1)]


class MaskRCNNConfig(DetectorSection):
    """Mask R-CNN on a feature pyramid."""

    host: Literal["maskrcnn"] = Field("maskrcnn", description="Which model.")
    channels: int = Field(256, ge=8, le=1024, description="Width of pyramid, box convolutions and mask head.")
    hidden: int = Field(1024, ge=8, le=16384, description="Width of the box head's two layers (box_head mlp).")
    box_head: Literal["mlp", "cam"] = Field(
        "mlp", description="Two full layers, or convolutions and a global average, which has class activation maps."
    )
    mask_head: Literal["per_class", "agnostic"] = Field(
        "per_class", description="A mask per class, or one for all, which classes without masks share."
    )
    mask_convs: int = Field(4, ge=1, le=16, description="Convolutions of the mask head before it upsamples.")
    anchor_scale: float = Field(8.0, ge=1, le=64, description="Side of an anchor, in strides of its pyramid level.")
    proposals_train: int = Field(2000, ge=1, le=20_000, description="Proposals of an image in training, at most.")
    proposals_test: int = Field(1000, ge=1, le=20_000, description="Proposals of an image otherwise, at most.")
    proposal_nms: Share = Field(0.7, description="Proposals that overlap a better one by more (IoU) go.")
    anchors_sampled: int = Field(256, ge=2, le=8192, description="Anchors of an image that the proposal loss sees.")
    rois: int = Field(512, ge=4, le=8192, description="Regions of an image that the box loss sees.")
    positive_share: Share = Field(0.25, description="Upper bound of the share of regions that hold an object.")
    gt_boxes_only: bool = Field(
        False, description="Mask loss on annotated boxes alone (ContrastMask's code) rather than on all positives."
    )
    score_threshold: Fraction = Field(0.05, description="Detections must score above this.")
    nms: Share = Field(0.5, description="Detections that overlap a better one of their class by more (IoU) go.")


class ContrastConfig(Section):
    """The contrastive head (ContrastMask, section 3)."""

    encoder_convs: int = Field(8, ge=1, le=32, description="Convolutions of the encoder.")
    projector_layers: int = Field(3, ge=1, le=8, description="Layers of the projector.")
    projector_norm: bool = Field(False, description="Batch normalisation between the projector's layers (code).")
    supervision: Literal["base", "novel", "all"] = Field(
        "all", description="Whose regions are contrasted: of objects with a mask, without one, or of both."
    )
    query_sharing: bool = Field(True, description="One pair of queries for all regions, or a pair of each its own.")
    sigma: float = Field(0.3, gt=0, le=1, description="Share of the foreground and background pixels drawn as keys.")
    tau: Share = Field(0.7, description="Temperature of easy keys; that of hard ones is 1 - tau.")
    delta: float = Field(
        0.1, gt=0, lt=0.5, description="Without a mask, activations from 1 - delta are foreground, up to delta back."
    )
    min_keys: int = Field(5, ge=1, le=196, description="Pixels that each of a region's four sets of keys needs.")
    novel_keys: Literal["cam", "mask"] = Field(
        "cam", description="Where keys of objects without a mask lie; mask, where the file has it, is the upper bound."
    )
    loss: Literal["paper", "code"] = Field("paper", description="Eq. 1-4, or what the released code computes.")
    weight: float = Field(1.0, ge=0, le=100, description="Weight of the loss before the warm-up's factor.")
    warmup_start: Fraction = Field(0.25, description="Factor on the loss in the beginning.")
    warmup_epochs: float = Field(4.0, ge=0, le=10_000, description="Epochs until the factor has grown to 1.")
    fuse: Literal["add", "concat"] = Field(
        "add", description="How the mask head gets the encoder's features: added (authors' README) or beside (text)."
    )
    attention: bool = Field(False, description="Average the encoder's features over like pixels before (code).")

    @model_validator(mode="after")
    def _shared_queries_of_the_code(self) -> "ContrastConfig":
        if self.loss == "code" and not self.query_sharing:
            raise ValueError("contrast.loss = code has shared queries alone: set contrast.query_sharing to true")
        return self


# Where the released code departs from the paper; whatever the user gives comes before
_CODE: dict[str, Any] = {
    "gt_boxes_only": True,
    "contrast": {"loss": "code", "tau": 0.3, "weight": 0.1, "attention": True, "projector_norm": True},
}


class ContrastMaskConfig(MaskRCNNConfig):
    """Mask R-CNN with class activation maps and the contrastive head."""

    host: Literal["contrastmask"] = Field("contrastmask", description="Which model.")  # type: ignore[assignment]
    box_head: Literal["mlp", "cam"] = Field(
        "cam", description="Two full layers, or convolutions and a global average, which has class activation maps."
    )
    mask_head: Literal["per_class", "agnostic"] = Field(
        "agnostic", description="A mask per class, or one for all, which classes without masks share."
    )
    cam: bool = Field(True, description="Add the class activation map to the mask head's input (paper: Table 2).")
    cl_head: bool = Field(True, description="The contrastive head (paper: Table 2).")
    code_compat: bool = Field(
        False, description="Defaults of the released code: its loss, temperatures, projector, attention, mask loss."
    )
    contrast: ContrastConfig = ContrastConfig()

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_code(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("code_compat") is True:
            given = values.get("contrast", {})
            given = given.model_dump(exclude_unset=True) if isinstance(given, ContrastConfig) else given
            if isinstance(given, Mapping):
                return {**_CODE, **values, "contrast": {**_CODE["contrast"], **given}}
        return values

    @model_validator(mode="after")
    def _maps_need_their_box_head(self) -> "ContrastMaskConfig":
        if self.box_head != "cam" and (self.cam or self.cl_head):
            raise ValueError("box_head = mlp has no class activation maps: set it to cam, or cam and cl_head to false")
        return self


class MaskRCNNTraining(SupervisedConfig):
    """Training on labels."""

    model: MaskRCNNConfig = MaskRCNNConfig()
    trainer: TrainerConfig = TrainerConfig(
        optimizer="sgd", lr=0.02, weight_decay=1e-4, backbone_lr=1.0, warmup_steps=500, clip=0.0
    )


class ContrastMaskTraining(MaskRCNNTraining):
    """Training on boxes of all classes and masks of some."""

    model: ContrastMaskConfig = ContrastMaskConfig()


_TINY: dict[str, Any] = {
    "freeze": "all",
    "channels": 32,
    "hidden": 64,
    "anchor_scale": 4.0,
    "proposals_train": 100,
    "proposals_test": 50,
    "anchors_sampled": 64,
    "rois": 32,
}

# SGD 0.02 for 16 images, 12 epochs, several scales (He et al.; Wang et al., section 4)
_SGD = {"optimizer": "sgd", "lr": 0.02, "weight_decay": 1e-4, "backbone_lr": 1.0, "warmup_steps": 500, "clip": 0.0}
_RECIPE: Preset = {"data": {"short_sides": [640, 672, 704, 736, 768, 800]}, "trainer": _SGD}
_SMALL: Preset = {
    "data": {"batch_size": 4, "short_side": 128, "long_side": 192},
    "trainer": {**_SGD, "lr": 0.01, "lr_batch": 4, "warmup_steps": 20, "clip": 5.0},
}

MASKRCNN_PRESETS: dict[str, Preset] = {
    "default": {"trainer": _SGD},
    "multi-scale": _RECIPE,
    # small images and a small model: for a look at the machinery, on a CPU
    "tiny": {**_SMALL, "model": _TINY},
}

CONTRASTMASK_PRESETS: dict[str, Preset] = {
    "default": _RECIPE,
    "code_compat": {**_RECIPE, "model": {"code_compat": True}},
    # the class-agnostic baseline of Table 2, and the baseline with class activation maps
    "baseline": {**_RECIPE, "model": {"cam": False, "cl_head": False}},
    "cam": {**_RECIPE, "model": {"cl_head": False}},
    "tiny": {**_SMALL, "model": {**_TINY, "contrast": {"encoder_convs": 2, "projector_layers": 2}}},
}
