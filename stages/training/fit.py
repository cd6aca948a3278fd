"""The one training loop: lightning around a recipe, with a callback for each concern."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning
import torch

from ...schemas.errors import UserError
from ...store.run import Run
from ..device import resolve_precision
from .callbacks.averaging import Averaging
from .callbacks.checkpoint import Checkpoints
from .callbacks.curves import Curves, Progress
from .callbacks.evaluation import Evaluate, Evaluation
from .callbacks.resume import Resume
from .callbacks.skipped import SkippedImages
from .callbacks.stopping import Stopping
from .checkpoints import read_newest
from .recipe import AnyRecipe, check_processes
from .trainer import find_processes, make_trainer, out_of_memory, quiet


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run computes. `trainer_options` replaces how lightning finds its processes."""

    device: torch.device
    processes: int = 1
    trainer_options: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Control:
    """How long a call goes on, and who is told."""

    stop: threading.Event = field(default_factory=threading.Event)
    report: Callable[[Progress], None] = lambda _: None
    max_steps: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call did: the step reached, whether that is the end, the newest results, and what was passed over."""

    step: int
    finished: bool
    checkpoint: Path
    values: dict[str, float]
    skipped: int


def fit(recipe: AnyRecipe, run: Run, place: Place, control: Control, evaluate: Evaluate | None = None) -> Outcome:
    """Train from the newest checkpoint in the run, if there is one, to the end, to `stop`, or for `max_steps` steps.

    Raises UserError for what the user can change: a loss that is no number, no memory left, odd numbers of processes.
    """
    schedule = recipe.schedule
    check_processes(schedule, place.processes)
    found = read_newest(run)
    if found is not None:
        try:
            recipe.load_state_dict(found.state)
        except RuntimeError as error:
            words = " ".join(str(error).split())[:200]
            raise UserError(f"{run.last} is of another model ({words}): give the run's own settings.") from None
        recipe.step = found.step
    first = recipe.done
    last = schedule.total_steps if control.max_steps is None else min(schedule.total_steps, first + control.max_steps)
    recipe.stop_at = last * schedule.accumulate
    averaging = Averaging(recipe, found)
    evaluation = Evaluation(run, evaluate, averaging)
    if first < last:
        skipped = SkippedImages(run)
        callbacks: list[lightning.Callback] = [
            Resume(found),
            skipped,
            Curves(run, skipped, control.report),
            averaging,
            Checkpoints(run, evaluation),
            evaluation,
            Stopping(control.stop),
        ]
        _train(recipe, run, place, callbacks)
    elif evaluation.owed(recipe):
        recipe.to(place.device)
        evaluation.run(recipe, place.device)
    step = recipe.done
    values = evaluation.values or run.evaluations().get(step, {})
    return Outcome(step, step == schedule.total_steps, run.last, values, len(run.read_skipped()))


def _train(recipe: AnyRecipe, run: Run, place: Place, callbacks: list[lightning.Callback]) -> None:
    with quiet():
        trainer = make_trainer(
            run.folder,
            callbacks,
            resolve_precision(recipe.loop.precision, place.device),
            place.trainer_options or find_processes(place.device, place.processes),
            accumulate_grad_batches=recipe.schedule.accumulate,
            gradient_clip_val=recipe.loop.clip or None,
        )
        try:
            trainer.fit(recipe)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if out_of_memory(error):
                raise UserError(
                    f"There is not enough memory for {recipe.schedule.micro_batch} images at once: "
                    f"{recipe.memory_advice()}."
                ) from None
            raise
