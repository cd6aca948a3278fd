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

Model = Annotated[str, typer.Option(help=f"One of {', '.join(MODELS)} (see `models`).")]
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
    weights: Weights = "densecl-r50-in1k-200ep",
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
    """Train a model on annotations, or on the pseudo-labels of a data set."""
    settings = load_training_config(model, preset, config, set_ or [])
    if show_config:
        show(settings)
        return
    if (dataset is None) == (gt is None):
        raise UserError("Train on one of two: --images with --gt, or a DATASET of pseudo-labels.")
    check_validation(val_images, val_gt)
    from ..pipeline.training.job import Inputs, TrainingJob

    inputs = Inputs(
        dataset=dataset,
        images=images,
        gt=gt,
        val_images=val_images,
        val_gt=val_gt,
        weights=weights,
        percent=fraction,
        indices=_indices(subset, fraction),
    )
    job = TrainingJob("supervised", settings, inputs, out, resume)
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
    chosen = [] if assigner is None else [f"prompt.assigner={assigner}"]
    settings = load_pretraining_config(model, preset, config, [*(set_ or []), *chosen])
    if show_config:
        show(settings)
        return
    from ..pipeline.training.job import Inputs, TrainingJob

    inputs = Inputs(dataset=dataset, images=images, weights=weights)
    job = TrainingJob("saliency-prompt", settings, inputs, out, resume)
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
    check_validation(val_images, val_gt)
    start = Path(run).is_dir()
    if start:
        from ..store.run import Run

        before = Run(Path(run)).read_card().model
        found = find_model(before).finetuned_as or before
        if model not in (None, found):
            raise UserError(f"{run} goes on as {found}: leave --model out, or give a backbone's weights instead.")
        model = found
    settings = load_training_config(model or "knet", preset, config, set_ or [])
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
    job = TrainingJob("supervised", settings, inputs, out, resume)

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
