"""Carrying out a training job, here or on Ray, and saying how it goes."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from . import exits
from .options import plain_console

if TYPE_CHECKING:
    from ..pipeline.training.job import TrainingJob
    from ..stages.training.callbacks.curves import Progress
    from ..stages.training.fit import Outcome

Out = Annotated[Path, typer.Option(help="Folder of the run: card, checkpoints, curves, list of skipped photographs.")]
Resume = Annotated[bool, typer.Option("--resume", hidden=True, help="Not needed: the same command goes on.")]
Processes = Annotated[
    int, typer.Option(min=1, help="Processes that train together: one per GPU (CPU workers with --device cpu).")
]
MaxSteps = Annotated[
    int | None, typer.Option(min=1, help="Stop after so many optimizer steps of this call; resume later.")
]
ShowConfig = Annotated[bool, typer.Option("--show-config", help="Print the configuration, and stop.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a training run.")]


def run_job(
    job: "TrainingJob",
    device: str,
    processes: int,
    ray: str | None,
    cpus: int,
    max_steps: int | None,
    words: Callable[["Outcome"], str],
) -> None:
    """Train, say what came out (`words`: what to do next when all is done), and end with the exit code."""
    from ..pipeline.signals import graceful_stop
    from ..stages.training.fit import Control, Place

    console = plain_console(stderr=True)

    def say_stopping() -> None:
        console.print("writing a checkpoint; press Ctrl-C again to stop at once (steps since the last one are lost)")

    with graceful_stop(say_stopping) as stop:
        control = Control(stop, ProgressLines(console), max_steps)
        if ray is None:
            from ..stages.device import resolve_device

            outcome = job.run(Place(resolve_device(device), processes), control)
        else:
            from ..cluster.training import train_on_ray
            from ..schemas.cluster import make_workers

            workers = make_workers(float(device != "cpu"), cpus, processes, processes)
            outcome = train_on_ray(job, ray, workers, control)
    if outcome.skipped:
        console.print(f"{outcome.skipped:,} photographs were skipped: see {job.out / 'skipped.jsonl'}")
    if not outcome.finished:
        console.print(f"stopped at step {outcome.step:,}: run the same command again to go on")
        raise typer.Exit(exits.INTERRUPTED if stop.is_set() else exits.DONE)
    for name, value in outcome.values.items():
        typer.echo(f"{name} {value:.2f}")
    typer.echo(f"done: {words(outcome)}")
    raise typer.Exit(exits.SET_ASIDE if outcome.skipped else exits.DONE)


class ProgressLines:
    """One line per entry of the curves; of DenseCL, on the first one, a word about what to expect."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._first = True

    def __call__(self, progress: "Progress") -> None:  # noqa: D102
        from ..pipeline.progress import duration

        values = progress.values
        match = f", match accuracy {values['match_accuracy']:.3f}" if "match_accuracy" in values else ""
        skipped = f", {progress.skipped} skipped" if progress.skipped else ""
        left = (progress.total_steps - progress.step) / max(progress.step_rate, 1e-9)
        self._console.print(
            f"epoch {progress.epoch}/{progress.epochs}, step {progress.step:,}/{progress.total_steps:,}: "
            f"loss {values.get('loss', float('nan')):.3f}{match}, {progress.images_per_second:.1f} images/s{skipped}, "
            f"{duration(left)} left"
        )
        if self._first and progress.epoch == 1 and "queue_global_spread" in values:
            self._console.print("(the loss rises while the queue fills with real keys: that is normal)")
        self._first = False
