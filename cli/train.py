"""`train`, `pretrain`, `finetune`: models that find instances, on annotations and on pseudo-labels."""

import json
from pathlib import Path
from typing import Annotated

import typer
import yaml

from ..schemas.errors import UserError
from ..schemas.section import Section
from ..schemas.training.registry import MODELS, find_model, load_pretraining_config, load_training_config
from .jobs import MaxSteps, Out, Processes, Resume, ShowConfig, run_job
from .options import ConfigFile, CpusPerWorker, DatasetUrl, Device, Overrides, Ray
from .referring import train_unilseg

DEFAULT_WEIGHTS = "densecl-r50-in1k-200ep"
Model = Annotated[str, typer.Option(help=f"One of {', '.join(MODELS)}, unilseg (see `models`).")]
TrainPreset = Annotated[str | None, typer.Option("--preset", help="Named configuration of the model (see `models`).")]
Weights = Annotated[str, typer.Option(help="Backbone: registered name or file.")]
ValImages = Annotated[str | None, typer.Option(help="Folder to evaluate on.")]
ValGt = Annotated[str | None, typer.Option(help="Its COCO annotations.")]
Fraction = Annotated[float, typer.Option(min=0, max=100, help="Per cent of the images to train on.")]
MaskFraction = Annotated[
    float, typer.Option(min=0, max=100, help="Per cent of the annotations whose masks are learned from; classes all.")
]
MaskPerImage = Annotated[
    bool, typer.Option("--mask-per-image", help="With --mask-fraction: draw images instead of annotations.")
]
Subset = Annotated[Path | None, typer.Option(help="JSON of indices into the images list: percent -> seed -> list.")]


def train(
    out: Out,
    dataset: Annotated[
        str | None, typer.Argument(metavar="[DATASET]", help="Pseudo-labels to train on, class-agnostically.")
    ] = None,
    model: Model = "knet",
    images: Annotated[
        str | None, typer.Option(help="Folder of the photographs: of --gt, or of DATASET if they have moved.")
    ] = None,
    gt: Annotated[str | None, typer.Option(help="COCO annotations.")] = None,
    base: Annotated[
        str | None, typer.Option(help="Classes whose masks are learned from: voc, nonvoc, a file of names, or names.")
    ] = None,
    pseudo: Annotated[
        str | None, typer.Option(metavar="DATASET", help="Pseudo-masks for objects that have a box alone.")
    ] = None,
    panoptic_gt: Annotated[str | None, typer.Option(help="COCO panoptic json, its PNGs in a folder beside it.")] = None,
    mattes: Annotated[str | None, typer.Option(help="Folder of alphas, named as the photographs.")] = None,
    refer: Annotated[
        str | None, typer.Option(help="Of unilseg: references, in REFER's files or COCO's format with `refs`.")
    ] = None,
    start: Annotated[str | None, typer.Option(metavar="RUN", help="Begin from a run instead of a backbone.")] = None,
    weights: Weights = DEFAULT_WEIGHTS,
    val_images: ValImages = None,
    val_gt: ValGt = None,
    fraction: Fraction = 100.0,
    subset: Subset = None,
    preset: TrainPreset = None,
    config: ConfigFile = None,
    set_: Overrides = None,
    device: Device = "auto",
    processes: Processes = 1,
    ray: Ray = None,
    cpus_per_worker: CpusPerWorker = 4,
    resume: Resume = False,
    max_steps: MaxSteps = None,
    show_config: ShowConfig = False,
) -> None:
    """Train a model on annotations, or on the pseudo-labels of a data set; unilseg on masks with texts.

    solov2-panoptic learns things and stuff (--panoptic-gt), solov2-matting alphas (--mattes, from a run of solov2).
    """
    del resume
    if model == "unilseg":
        if gt is not None:
            raise UserError("unilseg trains on texts: give its references as --refer, not --gt.")
        train_unilseg(
            out,
            dataset,
            refer,
            images,
            (val_images, val_gt),
            None if weights == DEFAULT_WEIGHTS else weights,
            start,
            (preset, config, set_ or []),
            (device, processes, ray, cpus_per_worker),
            max_steps=max_steps,
            show_config=show_config,
        )
        return
    if refer is not None:
        raise UserError("--refer is for --model unilseg: add it, or leave it out.")
    settings = load_training_config(model, preset, config, set_ or [])
    if show_config:
        show(settings)
        return
    if sum(one is not None for one in (dataset, gt, panoptic_gt, mattes)) != 1:
        raise UserError(
            "Train on one thing: --images with --gt (or --panoptic-gt, or --mattes), or a DATASET of pseudo-labels."
        )
    check_validation(val_images, val_gt)
    from ..pipeline.training.job import Inputs, TrainingJob

    inputs = Inputs(
        dataset=dataset,
        images=images,
        gt=gt,
        base=base,
        pseudo=pseudo,
        panoptic_gt=panoptic_gt,
        mattes=mattes,
        val_images=val_images,
        val_gt=val_gt,
        weights=None if start else weights,
        start=start,
        percent=fraction,
        indices=_indices(subset, fraction),
    )
    job = TrainingJob(find_model(model).recipe, settings, inputs, out)
    run_job(job, device, processes, ray, cpus_per_worker, max_steps, lambda _: _use(out))


def pretrain(
    dataset: DatasetUrl,
    out: Out,
    images: Annotated[str | None, typer.Option(help="Folder or bucket of the photographs, if they have moved.")] = None,
    model: Model = "knet",
    weights: Weights = "densecl-r50-in1k-200ep",
    assigner: Annotated[str | None, typer.Option(help="none, random, sequential or cosine.")] = None,
    preset: TrainPreset = None,
    config: ConfigFile = None,
    set_: Overrides = None,
    device: Device = "auto",
    processes: Processes = 1,
    ray: Ray = None,
    cpus_per_worker: CpusPerWorker = 4,
    resume: Resume = False,
    max_steps: MaxSteps = None,
    show_config: ShowConfig = False,
) -> None:
    """Saliency Prompt pre-training of a query-based model on a data set of pseudo-labels."""
    del resume
    chosen = [] if assigner is None else [f"prompt.assigner={assigner}"]
    settings = load_pretraining_config(model, preset, config, [*(set_ or []), *chosen])
    if show_config:
        show(settings)
        return
    from ..pipeline.training.job import Inputs, TrainingJob

    inputs = Inputs(dataset=dataset, images=images, weights=weights)
    job = TrainingJob("saliency-prompt", settings, inputs, out)
    following = f"saliency-prompt finetune {out} --images ... --gt ... --out ..."
    run_job(job, device, processes, ray, cpus_per_worker, max_steps, lambda _: following)


def finetune(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A training run; or backbone weights, to compare.")],
    images: Annotated[str, typer.Option(help="Folder of the annotated photographs.")],
    gt: Annotated[str, typer.Option(help="Their COCO annotations.")],
    out: Out,
    model: Annotated[str | None, typer.Option(help="With backbone weights: which model (see `models`).")] = None,
    val_images: ValImages = None,
    val_gt: ValGt = None,
    fraction: Fraction = 100.0,
    subset: Subset = None,
    mask_fraction: MaskFraction = 100.0,
    mask_per_image: MaskPerImage = False,
    preset: TrainPreset = None,
    config: ConfigFile = None,
    set_: Overrides = None,
    device: Device = "auto",
    processes: Processes = 1,
    ray: Ray = None,
    cpus_per_worker: CpusPerWorker = 4,
    resume: Resume = False,
    max_steps: MaxSteps = None,
) -> None:
    """Train on few annotations, starting from a training run.

    Layers that depend on the classes begin anew; `transfer.json` in the new run lists what came over and what did not.
    """
    del resume
    check_validation(val_images, val_gt)
    start = Path(run).is_dir()
    if start:
        from ..store.run import Run

        before = Run(Path(run)).read_card().model
        found = find_model(before).finetuned_as or before
        if model not in (None, found):
            raise UserError(f"{run} goes on as {found}: leave --model out, or give a backbone's weights instead.")
        model = found
    model = model or "knet"
    if find_model(model).recipe != "supervised":
        raise UserError(f"{model} does not learn from COCO instances: use `train --model {model} --start {run}`.")
    settings = load_training_config(model, preset, config, set_ or [])
    from ..pipeline.training.job import Inputs, TrainingJob

    inputs = Inputs(
        images=images,
        gt=gt,
        val_images=val_images,
        val_gt=val_gt,
        weights=None if start else run,
        start=run if start else None,
        percent=fraction,
        indices=_indices(subset, fraction),
        mask_percent=mask_fraction,
        mask_per_image=mask_per_image,
    )
    job = TrainingJob("supervised", settings, inputs, out)

    def words(_: object) -> str:
        if start:
            moved = json.loads((out / "transfer.json").read_text(encoding="utf-8"))
            typer.echo(f"{len(moved['transferred'])} tensors came from {run}, {len(moved['fresh'])} began anew:")
            for name in moved["fresh"]:
                typer.echo(f"  {name}")
        return _use(out)

    run_job(job, device, processes, ray, cpus_per_worker, max_steps, words)


def _use(out: Path) -> str:
    return f"saliency-prompt predict {out} PHOTOS --out predictions.json"


def show(settings: Section) -> None:
    """Print a configuration."""
    typer.echo(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False), nl=False)


def check_validation(val_images: str | None, val_gt: str | None) -> None:
    """Raise UserError for images without annotations, and the other way round."""
    if (val_images is None) != (val_gt is None):
        raise UserError("Evaluation needs both --val-images and --val-gt: give the other one too.")


def _indices(subset: Path | None, fraction: float) -> tuple[int, ...] | None:
    if subset is None:
        return None
    from ..stages.instances.labelled import read_subset

    return tuple(read_subset(subset, fraction))
