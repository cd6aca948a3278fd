"""`pretrain`, `finetune`, `predict`, `kernels`: query-based models on pseudo-labels and annotations."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..schemas.errors import UserError
from ..schemas.instances import FINETUNE_PRESETS, PRETRAIN_PRESETS, load_instance_config
from .options import ConfigFile, CpusPerWorker, DatasetUrl, Device, Overrides, Ray, plain_console

if TYPE_CHECKING:
    from ..stages.instances.train import Progress

EXIT_SKIPPED = 3
EXIT_INTERRUPTED = 130
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]
Out = Annotated[Path, typer.Option(help="Folder of the run: card, checkpoints, curves.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")]
Processes = Annotated[int, typer.Option(min=1, help="Processes that train together: one per GPU.")]
MaxSteps = Annotated[int | None, typer.Option(min=1, help="Stop after so many steps of this call; resume later.")]


def pretrain(
    dataset: DatasetUrl,
    out: Out,
    images: Annotated[str | None, typer.Option(help="Folder or bucket of the photographs, if they have moved.")] = None,
    model: Annotated[str, typer.Option(help="knet.")] = "knet",
    weights: Annotated[str, typer.Option(help="Backbone: registered name or file.")] = "densecl-r50-in1k-200ep",
    assigner: Annotated[str | None, typer.Option(help="none, random, sequential or cosine.")] = None,
    preset: Annotated[str, typer.Option(help=f"One of {', '.join(PRETRAIN_PRESETS)}.")] = "sp-coco",
    config: ConfigFile = None,
    set_: Overrides = None,
    device: Device = "auto",
    processes: Processes = 1,
    ray: Ray = None,
    cpus_per_worker: CpusPerWorker = 4,
    resume: Resume = False,
    max_steps: MaxSteps = None,
) -> None:
    """Saliency Prompt pre-training on a data set of pseudo-labels."""
    chosen = {"model.host": model, "prompt.assigner": assigner}
    overrides = [*(set_ or []), *(f"{key}={value}" for key, value in chosen.items() if value is not None)]
    settings = load_instance_config(PRETRAIN_PRESETS, preset, config, overrides)

    arguments = {"url": dataset, "images": images, "weights": weights, "config": settings, "out": out}
    outcome = _run("pretrain", arguments, device, processes, ray, cpus_per_worker, resume, max_steps)
    _tell(out, outcome, "saliency-prompt finetune {} --images ... --gt ... --out ...")


def finetune(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A pre-training run; or backbone weights, to compare.")],
    images: Annotated[str, typer.Option(help="Folder of the annotated photographs.")],
    gt: Annotated[str, typer.Option(help="Their COCO annotations.")],
    out: Out,
    val_images: Annotated[str | None, typer.Option(help="Folder to evaluate on.")] = None,
    val_gt: Annotated[str | None, typer.Option(help="Its COCO annotations.")] = None,
    fraction: Annotated[float, typer.Option(min=0, max=100, help="Per cent of the images to train on.")] = 100.0,
    subset: Annotated[
        Path | None, typer.Option(help="JSON of indices into the images list: percent -> seed -> list.")
    ] = None,
    preset: Annotated[str, typer.Option(help=f"One of {', '.join(FINETUNE_PRESETS)}.")] = "sp-coco",
    config: ConfigFile = None,
    set_: Overrides = None,
    device: Device = "auto",
    processes: Processes = 1,
    ray: Ray = None,
    cpus_per_worker: CpusPerWorker = 4,
    resume: Resume = False,
    max_steps: MaxSteps = None,
) -> None:
    """Train on few annotations, starting from a pre-training run."""
    settings = load_instance_config(FINETUNE_PRESETS, preset, config, set_ or [])
    if (val_images is None) != (val_gt is None):
        raise UserError("Evaluation needs both --val-images and --val-gt: give the other one too.")
    arguments: dict[str, Any] = {"start": run, "images": images, "gt": gt, "config": settings, "out": out}
    arguments |= {"percent": fraction, "val_images": val_images, "val_gt": val_gt}
    if subset is not None:
        from ..stages.instances.labelled import read_subset

        arguments["indices"] = read_subset(subset, fraction)
    found = _run("finetune", arguments, device, processes, ray, cpus_per_worker, resume, max_steps)
    if found.transferred:
        typer.echo(f"{len(found.transferred)} tensors came from {run}, {len(found.fresh)} began anew:")
        for name in found.fresh:
            typer.echo(f"  {name}")
    for name, value in found.outcome.values.items():
        typer.echo(f"{name} {value:.2f}")
    _tell(out, found.outcome, "saliency-prompt predict {} PHOTOS --out predictions.json")


def predict(
    run: RunFolder,
    photos: Annotated[str, typer.Argument(help="Folder, glob, text file of paths, COCO json, or bucket URL.")],
    out: Annotated[Path, typer.Option(help="COCO results to write.")],
    overlays: Annotated[Path | None, typer.Option(help="Folder for pictures of them.")] = None,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Smallest score.")] = 0.05,
    device: Device = "auto",
) -> None:
    """Find objects in photographs with a trained model. Exit code 3 if some could not be used."""
    from ..pipeline.instances.predict import predict as find
    from ..stages.device import resolve_device

    skipped: list[str] = []
    count = find(run, photos, out, resolve_device(device), overlays=overlays, min_score=min_score, skip=skipped.append)
    typer.echo(f"wrote {out}: {count:,} objects")
    for line in skipped:
        typer.echo(line, err=True)
    raise typer.Exit(EXIT_SKIPPED if skipped else 0)


def kernels(
    run: RunFolder,
    images: Annotated[str, typer.Option(help="Photographs to look at.")],
    out: Annotated[Path, typer.Option(help="Picture to write.")],
    limit: Annotated[int, typer.Option(min=1, help="Photographs at most.")] = 5000,
    device: Device = "auto",
) -> None:
    """Draw where each query finds its objects, on average (Saliency Prompt, Figure 6), and say how they differ."""
    from ..pipeline.instances.predict import draw_kernels
    from ..stages.device import resolve_device

    typer.echo(json.dumps(draw_kernels(run, images, out, resolve_device(device), limit=limit), indent=2))


def curves(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of training runs.")],
    out: Annotated[Path, typer.Option(help="Picture to write: png, svg or pdf.")],
    metric: Annotated[list[str] | None, typer.Option(help="What to draw; may be given several times.")] = None,
) -> None:
    """Draw learning curves of training runs (also those of `densecl`) over each other."""
    from ..pipeline.curves import draw_curves, read_curves

    drawn = draw_curves({str(run): [read_curves(run)] for run in runs}, out, metric or [])
    typer.echo(f"wrote {out}: {', '.join(drawn)}")


def convert(
    kind: Annotated[str, typer.Argument(help="cityscapes, ctw1500 or textdet (MMOCR's JSON).")],
    source: Annotated[Path, typer.Argument(help="Folder that the data set was unpacked into.")],
    out: Annotated[Path, typer.Argument(help="COCO file to write.")],
) -> None:
    """Write the annotations of another data set as a COCO file."""
    from ..pipeline.instances.convert import convert as write

    images, annotations = write(kind, source, out)
    typer.echo(f"wrote {out}: {images:,} images, {annotations:,} annotations")


def _run(
    job: str,
    arguments: dict[str, Any],
    device: str,
    processes: int,
    ray: str | None,
    cpus: int,
    resume: bool,
    max_steps: int | None,
) -> Any:
    from ..pipeline.instances import jobs
    from ..pipeline.signals import graceful_stop
    from ..stages.device import resolve_device

    console = plain_console(stderr=True)

    def say(progress: "Progress") -> None:
        skipped = f", {progress.skipped} skipped" if progress.skipped else ""
        console.print(
            f"epoch {progress.epoch}/{progress.epochs}, step {progress.step:,}/{progress.total_steps:,}: "
            f"loss {progress.values.get('loss', float('nan')):.3f}, {progress.images_per_second:.1f} images/s{skipped}"
        )

    with graceful_stop(lambda: console.print("writing a checkpoint; press Ctrl-C again to stop at once")) as stop:
        common: dict[str, Any] = {"resume": resume, "stop": stop, "report": say, "max_steps": max_steps}
        if ray is None:
            loop = jobs.Loop(resolve_device(device), processes=processes, **common)
            return getattr(jobs, job)(**arguments, loop=loop)
        from ..cluster.instances import train_instances_on_ray
        from ..schemas.cluster import make_workers

        workers = make_workers(float(device != "cpu"), cpus, processes, processes)
        return train_instances_on_ray(job, arguments, address=ray, workers=workers, **common)


def _tell(out: Path, outcome: Any, following: str) -> None:
    if outcome.finished:
        typer.echo(f"done: {following.format(out)}")
        return
    typer.echo(f"stopped at step {outcome.step:,}: run the same command with --resume to go on")
    raise typer.Exit(EXIT_INTERRUPTED)
