"""Recipes by name: from a job to what is trained."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ...schemas.errors import UserError
from ...schemas.run import RunCard
from ...schemas.training.densecl import DenseCLConfig
from ...schemas.training.sections import PromptedConfig, SupervisedConfig
from ...stages.backbone import LoadedBackbone, load_backbone
from ...stages.device import resolve_precision
from ...stages.instances.augment import Samples
from ...stages.instances.labelled import CocoInstances
from ...stages.instances.reader import PseudoLabelDataset
from ...stages.instances.training import transfer
from ...stages.training.fit import Place
from ...store.run import Run
from ..sources import open_source
from .evaluate import Judge
from .job import Prepared, TrainingJob
from .model import build_model, read_state

# What fine-tuning takes over from pre-training: all of the model's own settings, but those of fine-tuning itself.
_NOT_SHAPE = {"freeze", "mask_logits"}


def prepare_densecl(job: TrainingJob, place: Place) -> Prepared:
    """DenseCL on photographs."""
    from ...stages.recipes.densecl.recipe import DenseCLRecipe, bn_splits, build_model, schedule
    from ...stages.training.recipe import check_processes

    config, photos = job.config, job.inputs.photos
    assert isinstance(config, DenseCLConfig)
    assert photos is not None
    source = open_source(photos, job.inputs.root)
    refs = list(source.refs())
    names = "\n".join(ref.file_name for ref in refs).encode("utf-8", "surrogateescape")
    check_processes(schedule(config, len(refs)), place.processes)
    precision = resolve_precision(config.train.precision, place.device)
    config = config.model_copy(update={"train": config.train.model_copy(update={"precision": precision})})
    run = Run(job.out)
    initial = None
    if config.model.init is not None and not run.checkpoints():
        initial = load_backbone(config.model.init, arch=config.model.arch).module.state_dict()
    model = build_model(config, initial, bn_splits(config, place.processes))
    card = RunCard(
        recipe=job.recipe,
        model="densecl",
        config=config.model_dump(mode="json"),
        arch=config.model.arch,
        source=source.description,
        images=len(refs),
        data=hashlib.sha256(names).hexdigest(),
    )
    return Prepared(DenseCLRecipe(model, config, refs, list(run.read_skipped())), config, card)


def prepare_saliency_prompt(job: TrainingJob, place: Place) -> Prepared:
    """Pre-training with prompts on a data set of pseudo-labels."""
    from ...stages.recipes.saliency_prompt import SaliencyPrompt

    config, inputs = job.config, job.inputs
    assert isinstance(config, PromptedConfig)
    backbone = _backbone(inputs.weights, config)
    config = _resolved(config, backbone, place.device)
    assert isinstance(config, PromptedConfig)
    data = _pseudo_labels(job, config, ("seed",) if with_seeds(config) else ())
    channels = _vector_channels(data) if with_seeds(config) else 0
    host: Any = build_model(config, backbone.module, 1)
    card = RunCard(
        recipe=job.recipe,
        num_classes=1,
        seed_channels=channels,
        data=data.root_hash or "",
        images=len(data),
        **_about(config, backbone),
    )
    return Prepared(SaliencyPrompt(host, config, data, seed_channels=channels), config, card)


def prepare_supervised(job: TrainingJob, place: Place) -> Prepared:
    """Training on annotations, or class-agnostic on a data set of pseudo-labels; from a backbone or from a run.

    From a run, everything comes over but the layers whose shape or meaning depends on the classes; `transfer.json` says
    by name what did. A part of the images is listed in `subset.json`.
    """
    from ...stages.recipes.supervised import Supervised

    config, inputs = job.config, job.inputs
    assert isinstance(config, SupervisedConfig)
    before, state = (None, {}) if inputs.start is None else read_state(Path(inputs.start))
    if before is None:
        backbone = _backbone(inputs.weights, config)
    else:
        if before.model != config.model.host:
            raise UserError(f"{inputs.start} is a run of {before.model}: give --model {before.model}, or its backbone.")
        config = _same_shape(config, before)
        stride_in_1x1 = config.model.stride_in_1x1
        backbone = load_backbone("random", arch=before.arch, stride_in_1x1=stride_in_1x1)
    config = _resolved(config, backbone, place.device)
    documents: list[tuple[str, Any]] = []
    about = _about(config, backbone)
    data: Samples
    if inputs.dataset is not None:
        labels = _pseudo_labels(job, config, ())
        data, classes = labels, 1
        card = RunCard(recipe=job.recipe, num_classes=1, data=labels.root_hash or "", images=len(labels), **about)
    else:
        annotated = _annotated(job, config)
        data, classes = annotated, len(annotated.categories)
        card = RunCard(
            recipe=job.recipe,
            num_classes=classes,
            categories=tuple(annotated.categories),
            class_names=tuple(annotated.class_names),
            data=annotated.sha256,
            images=len(annotated),
            percent=inputs.percent,
            source=inputs.gt or "",
            **about,
        )
        if annotated.chosen is not None:
            documents.append(("subset.json", {f"{inputs.percent}": {"1": annotated.chosen}}))
    host = build_model(config, backbone.module, classes)
    if before is not None:
        taken, fresh = transfer(host, state, skip=tuple(host.class_layers()))
        documents.append(("transfer.json", {"transferred": taken, "fresh": fresh}))
        weights = {"weights": before.weights, "weights_sha256": before.weights_sha256}
        card = card.model_copy(update={**weights, "pretrained": inputs.start})
    judge = None
    if inputs.val_images is not None and inputs.val_gt is not None:
        judge = Judge(config, card.categories or (1,), inputs.val_images, inputs.val_gt)
    return Prepared(Supervised(host, config, data), config, card, judge, tuple(documents))


def prepare_unilseg(job: TrainingJob, place: Place) -> Prepared:
    """UniLSeg on pairs of masks and texts."""
    from .referring import prepare_unilseg as prepare

    return prepare(job, place)


RECIPES: dict[str, Callable[[TrainingJob, Place], Prepared]] = {
    "densecl": prepare_densecl,
    "saliency-prompt": prepare_saliency_prompt,
    "supervised": prepare_supervised,
    "unilseg": prepare_unilseg,
}


def find_recipe(name: str) -> Callable[[TrainingJob, Place], Prepared]:
    """The recipe of a name; UserError for others."""
    if name not in RECIPES:
        raise UserError(f"There is no recipe {name!r}: take one of {', '.join(RECIPES)}.")
    return RECIPES[name]


def with_seeds(config: PromptedConfig) -> bool:
    """Whether a run needs the stored seed vectors."""
    return config.prompt.kernel_weight > 0


def _backbone(weights: str | None, config: SupervisedConfig) -> LoadedBackbone:
    if weights is None:
        raise UserError("Training needs a backbone: give --weights, a file or a registered name (`weights list`).")
    return load_backbone(weights, stride_in_1x1=config.model.stride_in_1x1)


def _pseudo_labels(job: TrainingJob, config: SupervisedConfig, vectors: tuple[str, ...]) -> PseudoLabelDataset:
    settings, url = config.data, job.inputs.dataset
    if url is None:
        raise UserError("This recipe trains on a data set of pseudo-labels: give DATASET.")
    return PseudoLabelDataset(
        url,
        job.inputs.images,
        size=(settings.short_side, settings.long_side),
        keep_ratio=settings.keep_ratio,
        min_score=settings.min_score,
        min_area=settings.min_area,
        max_masks=settings.max_masks,
        vectors=vectors,
        max_pixels=settings.max_pixels,
    )


def _annotated(job: TrainingJob, config: SupervisedConfig) -> CocoInstances:
    settings, inputs = config.data, job.inputs
    if inputs.images is None or inputs.gt is None:
        raise UserError("Training needs labels: give --images with --gt, or a DATASET of pseudo-labels.")
    return CocoInstances(
        inputs.images,
        inputs.gt,
        size=(settings.short_side, settings.long_side),
        keep_ratio=settings.keep_ratio,
        max_pixels=settings.max_pixels,
        indices=inputs.indices,
        percent=inputs.percent,
    )


def _resolved(config: SupervisedConfig, backbone: LoadedBackbone, device: torch.device) -> SupervisedConfig:
    precision = resolve_precision(config.trainer.precision, device)
    model = config.model.model_copy(update={"stride_in_1x1": backbone.stride_in_1x1})
    trainer = config.trainer.model_copy(update={"precision": precision})
    return config.model_copy(update={"model": model, "trainer": trainer})


def _same_shape(config: SupervisedConfig, before: RunCard) -> SupervisedConfig:
    """With the model's own settings as they were before."""
    kind = type(config.model)
    old = {name: value for name, value in before.config["model"].items() if name in kind.model_fields}
    same = {name: value for name, value in kind.model_validate(old) if name not in _NOT_SHAPE}
    return config.model_copy(update={"model": config.model.model_copy(update=same)})


def _about(config: SupervisedConfig, backbone: LoadedBackbone) -> dict[str, Any]:
    if not backbone.module.pyramid:
        raise UserError(f"{backbone.arch} has no pyramid to train on: give weights of a ResNet, or random.")
    return {
        "model": config.model.host,
        "config": config.model_dump(mode="json"),
        "arch": backbone.arch,
        "weights": backbone.weights,
        "weights_sha256": backbone.weights_sha256,
    }


def _vector_channels(data: PseudoLabelDataset) -> int:
    _, target = data[0]
    return int(target["vectors"]["seed"].shape[1])
