"""`freesolo`: from free masks to a detector without a label, and round again."""

from typing import TYPE_CHECKING, Annotated

import typer

from ..schemas.training.registry import load_training_config
from . import exits
from .jobs import MaxSteps, Out, Processes, ProgressLines, ShowConfig
from .options import (
    ConfigFile,
    CpusPerWorker,
    DatasetUrl,
    Device,
    GpusPerWorker,
    MaxWorkers,
    MinWorkers,
    Overrides,
    Ray,
    executor,
    plain_console,
)
from .train import TrainPreset, ValGt, ValImages, Weights, check_validation, show

if TYPE_CHECKING:
    from ..pipeline.training.job import TrainingJob
    from ..stages.training.fit import Outcome

MinScore = Annotated[float, typer.Option(min=0, max=1, help="Confidence from which what a round finds is a label.")]
MaxMasks = Annotated[int, typer.Option(min=1, help="Labels of a photograph, best first.")]


def freesolo(
    dataset: DatasetUrl,
    out: Out,
    weights: Weights = "densecl-r50-in1k-200ep",
    images: Annotated[str | None, typer.Option(help="Folder of the photographs, if they have moved.")] = None,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="How often to train, and to label with what came.")] = 2,
    min_score: MinScore = 0.3,
    max_masks: MaxMasks = 20,
    label_set: Annotated[
        list[str] | None, typer.Option("--label-set", help="Override a field of labelling, e.g. detect.max_width=0.95.")
    ] = None,
    val_images: ValImages = None,
    val_gt: ValGt = None,
    preset: TrainPreset = None,
    config: ConfigFile = None,
    set_: Overrides = None,
    device: Device = "auto",
    processes: Processes = 1,
    ray: Ray = None,
    gpus_per_worker: GpusPerWorker = None,
    cpus_per_worker: CpusPerWorker = 4,
    min_workers: MinWorkers = 1,
    max_workers: MaxWorkers = None,
    max_steps: MaxSteps = None,
    show_config: ShowConfig = False,
) -> None:
    """Train FreeSOLO on the masks of DATASET, label its photographs with it, train on these labels, and so on.

    OUT/round-0, OUT/round-1, ... are training runs, OUT/labels-0, ... data sets. The same command goes on where it was
    stopped. Every round starts from --weights.
    """
    from ..schemas.labels.detector import DetectorConfig
    from ..schemas.registry import load_label_config
    from ..schemas.training.freesolo import FreeSoloTraining

    settings = load_training_config("freesolo", preset, config, set_ or [])
    assert isinstance(settings, FreeSoloTraining)
    if show_config:
        show(settings)
        return
    check_validation(val_images, val_gt)
    limits = [f"detect.min_score={min_score}", f"detect.max_masks={max_masks}"]
    labels = load_label_config("detector", None, None, [*limits, *(label_set or [])])
    assert isinstance(labels, DetectorConfig)

    from ..pipeline.progress import Display
    from ..pipeline.rounds import Rounds, label_here, run_rounds
    from ..pipeline.signals import graceful_stop
    from ..stages.device import resolve_device
    from ..stages.training.fit import Control, Place

    console = plain_console(stderr=True)
    where = resolve_device(device)
    job = Rounds(dataset, out, weights, settings, labels, where, images, rounds, val_images=val_images, val_gt=val_gt)

    def say_stopping() -> None:
        console.print("finishing what is under way; the same command goes on (Ctrl-C again stops at once)")

    place = executor(ray, device, gpus_per_worker, cpus_per_worker, min_workers, max_workers)
    with place as label_on, graceful_stop(say_stopping) as stop, Display(console) as display:

        def train(one: "TrainingJob") -> "Outcome":
            control = Control(stop, ProgressLines(console), max_steps)
            console.print(f"training {one.out} on {one.inputs.dataset}")
            if ray is None:
                return one.run(Place(where, processes), control)
            from ..cluster.training import train_on_ray
            from ..schemas.cluster import make_workers

            workers = make_workers(float(device != "cpu"), cpus_per_worker, processes, processes)
            return train_on_ray(one, ray, workers, control)

        skipped = 0
        for round_ in run_rounds(job, train, label_here(display, stop, label_on)):
            skipped += round_.trained.skipped
            for name, value in round_.trained.values.items():
                typer.echo(f"round {round_.number}: {name} {value:.2f}")
            if round_.labels is None:
                console.print(f"stopped in round {round_.number}: run the same command to go on")
                raise typer.Exit(exits.INTERRUPTED if stop.is_set() else exits.DONE)
            seal = round_.labels.sealed
            assert seal is not None
            typer.echo(
                f"round {round_.number}: {seal.counts.masks:,} masks in {round_.labels.url}, root hash {seal.root_hash}"
            )
    last = job.run_folder(rounds - 1)
    typer.echo(f"done: saliency-prompt generate PHOTOS --model {last} --out LABELS")
    raise typer.Exit(exits.SET_ASIDE if skipped else exits.DONE)
