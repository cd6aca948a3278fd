"""Models that can be trained, by name: configurations and presets. No torch, so that the command line reads it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..errors import UserError
from ..load import SHOW, load_settings
from . import contrastmask, freesolo, knet, mask2former, queryinst, solo
from .sections import Preset, PromptedConfig, SupervisedConfig


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model: `training` configures it on labels, `pretraining` with prompts where it takes them.

    `recipe` trains it; with `boxes_alone` it learns from objects without a mask, too.
    `finetuned_as` names the model that a run of it goes on as, where that is another one.
    """

    words: str
    training: type[SupervisedConfig]
    presets: Mapping[str, Preset]
    pretraining: type[PromptedConfig] | None = None
    pretrain_presets: Mapping[str, Preset] | None = None
    recipe: str = "supervised"
    boxes_alone: bool = False
    finetuned_as: str | None = None


MODELS: dict[str, ModelSpec] = {
    "knet": ModelSpec(
        "K-Net (Zhang et al., NeurIPS 2021)", knet.KNetTraining, knet.FINETUNE, knet.KNetPretraining, knet.PRETRAIN
    ),
    "queryinst": ModelSpec(
        "QueryInst (Fang et al., ICCV 2021)",
        queryinst.QueryInstTraining,
        queryinst.FINETUNE,
        queryinst.QueryInstPretraining,
        queryinst.PRETRAIN,
        boxes_alone=True,
    ),
    "mask2former": ModelSpec(
        "Mask2Former (Cheng et al., CVPR 2022)",
        mask2former.Mask2FormerTraining,
        mask2former.FINETUNE,
        mask2former.Mask2FormerPretraining,
        mask2former.PRETRAIN,
    ),
    "maskrcnn": ModelSpec(
        "Mask R-CNN (He et al., ICCV 2017)",
        contrastmask.MaskRCNNTraining,
        contrastmask.MASKRCNN_PRESETS,
        boxes_alone=True,
    ),
    "contrastmask": ModelSpec(
        "ContrastMask (Wang et al., CVPR 2022): masks for classes that have boxes alone",
        contrastmask.ContrastMaskTraining,
        contrastmask.CONTRASTMASK_PRESETS,
        boxes_alone=True,
    ),
}
_FAMILY = {
    "solo": "SOLO (Wang et al., ECCV 2020)",
    "decoupled-solo": "Decoupled SOLO, rows and columns apart (SOLO, section 5)",
    "decoupled-solo-light": "Decoupled SOLO for speed",
    "solov2": "SOLOv2, kernels instead of channels (Wang et al., NeurIPS 2020)",
    "solov2-light": "SOLOv2 for speed",
}
MODELS |= {
    name: ModelSpec(words, solo.SoloTraining, solo.presets(name), boxes_alone=True) for name, words in _FAMILY.items()
}
MODELS |= {
    "solov2-panoptic": ModelSpec(
        "SOLOv2 with a semantic branch: things and stuff (--panoptic-gt)",
        solo.PanopticSoloTraining,
        solo.PANOPTIC_PRESETS,
        recipe="panoptic",
    ),
    "solov2-matting": ModelSpec(
        "SOLOv2 with soft mattes at full resolution (--mattes, --start RUN of solov2)",
        solo.MattingSoloTraining,
        solo.MATTING_PRESETS,
        recipe="matting",
    ),
}
MODELS["freesolo"] = ModelSpec(
    "FreeSOLO: SOLOv2 on coarse masks, without classes (Wang et al., CVPR 2022)",
    freesolo.FreeSoloTraining,
    freesolo.FREESOLO_PRESETS,
    recipe="freesolo",
    finetuned_as="solov2",
)
DEFAULT_PRESETS = ("default", "sp-coco", "tiny")  # the first that a model has


def find_model(name: str) -> ModelSpec:
    """The spec of a name; UserError for others."""
    if name not in MODELS:
        raise UserError(f"There is no model {name!r}: take one of {', '.join(MODELS)}.")
    return MODELS[name]


def load_training_config(
    model: str, preset: str | None = None, file: str | None = None, overrides: Iterable[str] = ()
) -> SupervisedConfig:
    """Configuration of training on labels: defaults, then the preset, then the file, then `section.field=value`."""
    spec = find_model(model)
    return load_settings(
        spec.training, spec.presets, preset or _first(spec.presets), file, overrides, f"{SHOW} {model}"
    )


def load_pretraining_config(
    model: str, preset: str | None = None, file: str | None = None, overrides: Iterable[str] = ()
) -> PromptedConfig:
    """The same of pre-training with prompts. UserError for a model that has no queries."""
    spec = find_model(model)
    if spec.pretraining is None or spec.pretrain_presets is None:
        able = ", ".join(name for name, one in MODELS.items() if one.pretraining is not None)
        raise UserError(f"{model} has no queries to put prompts on: pre-train one of {able}.")
    presets = spec.pretrain_presets
    return load_settings(
        spec.pretraining, presets, preset or _first(presets), file, overrides, f"{SHOW} {model} --pretrain"
    )


def _first(presets: Mapping[str, Preset]) -> str:
    return next((name for name in DEFAULT_PRESETS if name in presets), next(iter(presets)))
