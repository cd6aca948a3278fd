"""Recipes by name: from a job to what is trained."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...schemas.errors import UserError
from ...schemas.run import RunCard
from ...schemas.training.densecl import DenseCLConfig
from ...schemas.training.sections import PromptedConfig, SupervisedConfig
from ...stages.backbone import load_backbone
from ...stages.device import resolve_precision
from ...stages.instances.augment import Samples
from ...stages.instances.labelled import CocoInstances
from ...stages.instances.reader import PseudoLabelDataset
from ...stages.repeat_factors import Floats, repeat_factors
from ...stages.training.fit import Place
from ...store.run import Run
from ..sources import open_source
from .beginning import Beginning, Documents, begin, load_weights, resolved
from .evaluate import Judge
from .extended import prepare_matting, prepare_panoptic
from .job import Prepared, TrainingJob
from .model import build_model
from .partial import check_boxes_alone, read_pseudo_masks, read_split, split_of


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
    beginning = Beginning(config, load_weights(inputs.weights, config), None, {})
    config = resolved(config, beginning.backbone, place.device)
    assert isinstance(config, PromptedConfig)
    data = pseudo_labels(job, config, ("seed",) if with_seeds(config) else ())
    channels = _vector_channels(data) if with_seeds(config) else 0
    beginning = beginning.with_config(config)
    host: Any = build_model(config, beginning.backbone.module, 1)
    card = RunCard(
        recipe=job.recipe,
        num_classes=1,
        seed_channels=channels,
        data=data.root_hash or "",
        images=len(data),
        **beginning.about(),
    )
    return Prepared(SaliencyPrompt(host, config, data, seed_channels=channels), config, card)


def prepare_supervised(job: TrainingJob, place: Place) -> Prepared:
    """Training on annotations, or class-agnostic on a data set of pseudo-labels; from a backbone or from a run.

    From a run, everything comes over but the layers whose shape or meaning depends on the classes; `transfer.json` says
    by name what did. A part of the images is listed in `subset.json`, a part of the masks in `masks.json`. With `base`
    masks of other classes are not learned from; with `pseudo` a data set's masks take the place of those that are not
    there.
    """
    from ...stages.recipes.supervised import Supervised

    config, inputs = job.config, job.inputs
    assert isinstance(config, SupervisedConfig)
    beginning = begin(job, config, place.device)
    config = beginning.config
    documents: Documents = []
    factors: Floats | None = None
    data: Samples
    if inputs.dataset is not None:
        asked = [f"--{name}" for name in ("base", "pseudo") if {"base": inputs.base, "pseudo": inputs.pseudo}[name]]
        if asked:
            raise UserError(f"{asked[0]} tells which annotated classes have masks: give --gt instead of DATASET.")
        labels = pseudo_labels(job, config, ())
        data, classes = labels, 1
        card = RunCard(
            recipe=job.recipe, num_classes=1, data=labels.root_hash or "", images=len(labels), **beginning.about()
        )
    else:
        annotated, partial = _annotated(job, config)
        data, classes = annotated, len(annotated.categories)
        card = RunCard(
            recipe=job.recipe,
            num_classes=classes,
            categories=tuple(annotated.categories),
            class_names=tuple(annotated.class_names),
            data=annotated.sha256,
            images=len(annotated),
            percent=inputs.percent,
            mask_percent=inputs.mask_percent,
            mask_per_image=inputs.mask_per_image,
            source=inputs.gt or "",
            **partial,
            **beginning.about(),
        )
        if annotated.chosen is not None:
            documents.append(("subset.json", {f"{inputs.percent}": {"1": annotated.chosen}}))
        if annotated.masks_chosen is not None:
            documents.append(("masks.json", {f"{inputs.mask_percent}": {"1": annotated.masks_chosen}}))
        if config.data.repeat_threshold:
            factors = repeat_factors(annotated.labels, config.data.repeat_threshold)
    host, moved = beginning.build(classes)
    card = beginning.after(card, inputs.start)
    judge = None
    if inputs.val_images is not None and inputs.val_gt is not None:
        judge = Judge(config, card.categories or (1,), inputs.val_images, inputs.val_gt, split_of(card))
    return Prepared(Supervised(host, config, data, factors), config, card, judge, (*documents, *moved))


def prepare_unilseg(job: TrainingJob, place: Place) -> Prepared:
    """UniLSeg on pairs of masks and texts."""
    from .referring import prepare_unilseg as prepare

    return prepare(job, place)


def prepare_freesolo(job: TrainingJob, place: Place) -> Prepared:
    """FreeSOLO on masks without classes."""
    from .freesolo import prepare_freesolo as prepare

    return prepare(job, place)


RECIPES: dict[str, Callable[[TrainingJob, Place], Prepared]] = {
    "densecl": prepare_densecl,
    "saliency-prompt": prepare_saliency_prompt,
    "supervised": prepare_supervised,
    "freesolo": prepare_freesolo,
    "unilseg": prepare_unilseg,
    "panoptic": prepare_panoptic,
    "matting": prepare_matting,
}


def find_recipe(name: str) -> Callable[[TrainingJob, Place], Prepared]:
    """The recipe of a name; UserError for others."""
    if name not in RECIPES:
        raise UserError(f"There is no recipe {name!r}: take one of {', '.join(RECIPES)}.")
    return RECIPES[name]


def with_seeds(config: PromptedConfig) -> bool:
    """Whether a run needs the stored seed vectors."""
    return config.prompt.kernel_weight > 0


def pseudo_labels(job: TrainingJob, config: SupervisedConfig, vectors: tuple[str, ...]) -> PseudoLabelDataset:
    """The data set that a job trains on, with the stored vectors of these names."""
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


def _annotated(job: TrainingJob, config: SupervisedConfig) -> tuple[CocoInstances, dict[str, Any]]:
    """The annotations, and what a card says of those whose masks are not learned from."""
    settings, inputs, model = config.data, job.inputs, config.model.host
    if inputs.images is None or inputs.gt is None:
        raise UserError("Training needs labels: give --images with --gt, or a DATASET of pseudo-labels.")
    partial = {"--base": inputs.base, "--pseudo": inputs.pseudo, "--mask-fraction": inputs.mask_percent < 100}
    check_boxes_alone(model, alone=0, asked=[name for name, given in partial.items() if given])
    gt = Path(inputs.gt)
    split = None if inputs.base is None else read_split(gt, inputs.base)
    pseudo, root_hash = (None, "") if inputs.pseudo is None else read_pseudo_masks(inputs.pseudo, gt)
    data = CocoInstances(
        inputs.images,
        inputs.gt,
        size=(settings.short_side, settings.long_side),
        keep_ratio=settings.keep_ratio,
        max_pixels=settings.max_pixels,
        indices=inputs.indices,
        percent=inputs.percent,
        boxes_alone=True,
        masked=None if split is None else split.base,
        pseudo=pseudo,
        mask_percent=inputs.mask_percent,
        mask_per_image=inputs.mask_per_image,
    )
    check_boxes_alone(model, alone=data.alone, asked=())
    base = () if split is None else tuple(data.categories[label] for label in split.base)
    return data, {"base": base, "pseudo": root_hash}


def _vector_channels(data: PseudoLabelDataset) -> int:
    _, target = data[0]
    return int(target["vectors"]["seed"].shape[1])
