"""Curves, progress, and the end of a run whose loss is no number."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import lightning

from ....schemas.errors import UserError
from ....store.run import Run
from ..recipe import AnyRecipe
from .base import StepCallback, as_recipe, looks
from .skipped import SkippedImages


@dataclass(frozen=True, slots=True)
class Progress:
    """How a run stands: what a reporter is told at each entry of the curves."""

    step: int
    total_steps: int
    epoch: int
    epochs: int
    images_per_second: float
    step_rate: float  # optimizer steps per second
    values: dict[str, float]
    skipped: int


class Curves(StepCallback):
    """Writes means of losses, the rate and the recipe's gauges, and reports them; at the end of epochs, their means."""

    def __init__(self, run: Run, skipped: SkippedImages, report: Callable[[Progress], None]) -> None:
        self._run, self._skipped, self._report = run, skipped, report
        self._clock, self._clock_step = time.perf_counter(), 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        """Start the clock."""
        self._clock, self._clock_step = time.perf_counter(), as_recipe(pl_module).done

    def after_step(self, trainer: lightning.Trainer, recipe: AnyRecipe) -> None:
        """See `StepCallback`."""
        if looks(recipe):
            self._entry(trainer, recipe)
        if recipe.done % recipe.schedule.epoch_steps == 0:
            means = {f"epoch/{name}": value for name, value in recipe.epoch_averages.read().items()}
            write_curves(trainer, self._run, means, recipe.done)

    def _entry(self, trainer: lightning.Trainer, recipe: AnyRecipe) -> None:
        step, schedule = recipe.done, recipe.schedule
        means = recipe.averages.read()
        if not all(math.isfinite(value) for value in means.values()):
            raise not_finite(self._run, recipe, "The loss")
        now = time.perf_counter()
        step_rate = (step - self._clock_step) / max(now - self._clock, 1e-9)
        self._clock, self._clock_step = now, step
        images = step_rate * schedule.batch
        means |= recipe.gauges() | {"lr": recipe.learning_rate, "images_per_second": images}
        write_curves(trainer, self._run, means, step)
        if trainer.is_global_zero:
            epoch = (step - 1) // schedule.epoch_steps + 1
            skipped = self._skipped.count
            self._report(
                Progress(step, schedule.total_steps, epoch, schedule.epochs, images, step_rate, means, skipped)
            )


def write_curves(trainer: lightning.Trainer, run: Run, values: dict[str, float], step: int) -> None:
    """Add an entry, once for all processes."""
    if trainer.is_global_zero:
        run.append_curves({"step": step, **values})
    for logger in trainer.loggers:
        logger.log_metrics(values, step)


def not_finite(run: Run, recipe: AnyRecipe, what: str) -> UserError:
    """The end of a run that diverged, and how to go on."""
    good = next(iter(run.checkpoints()), None)
    resume = f"the last good checkpoint is {good}" if good else "no checkpoint had been written"
    rate, precision = recipe.settings()
    return UserError(
        f"{what} became NaN or infinite by step {recipe.done}; {resume}: start again from it with a lower "
        f"--set {rate}.lr, or with --set {precision}.precision=fp32."
    )
