"""Evaluation while training: owed at certain steps, and made up for after a crash."""

from typing import Any, Protocol

import lightning
import torch
from torch import nn

from ....models.distributed import process_count
from ....store.run import Run
from ..recipe import AnyRecipe
from .averaging import Averaging
from .base import StepCallback, as_recipe
from .curves import write_curves

Result = dict[str, Any]  # in COCO's format of results


class Evaluate(Protocol):
    """How a model is judged: every process finds in its share of the images, one scores what all have found."""

    def find(self, model: nn.Module, device: torch.device, rank: int, world: int) -> list[Result]:
        """Results in the images of process `rank`."""
        ...

    def score(self, found: list[Result]) -> dict[str, float]:
        """Numbers in per cent."""
        ...


class Evaluation(StepCallback):
    """Evaluates every so many epochs and at the end. A step is paid for when `evaluations.jsonl` has it."""

    def __init__(self, run: Run, evaluate: Evaluate | None, averaging: Averaging) -> None:
        self._run, self._evaluate, self._averaging = run, evaluate, averaging
        self.values: dict[str, float] = {}

    def due(self, recipe: AnyRecipe) -> bool:
        """Whether the step that was just done is to be evaluated."""
        if self._evaluate is None or not recipe.done:
            return False
        epoch, inside = divmod(recipe.done, recipe.schedule.epoch_steps)
        every = recipe.loop.evaluate_every
        return recipe.done == recipe.schedule.total_steps or bool(every and not inside and epoch % every == 0)

    def owed(self, recipe: AnyRecipe) -> bool:
        """Whether the present step is due and not paid for."""
        return self.due(recipe) and recipe.done not in self._run.evaluations()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Make up for what a crash cut off."""
        recipe = as_recipe(pl_module)
        if self.owed(recipe):
            self.after_step(trainer, recipe)

    def after_step(self, trainer: lightning.Trainer, recipe: AnyRecipe) -> None:
        """See `StepCallback`."""
        if self.due(recipe):
            values = self.run(recipe, trainer.strategy.root_device, trainer.global_rank, trainer.world_size)
            if trainer.is_global_zero:
                write_curves(trainer, self._run, {f"val/{name}": value for name, value in values.items()}, recipe.done)
            trainer.strategy.barrier()

    def run(self, recipe: AnyRecipe, device: torch.device, rank: int = 0, world: int = 1) -> dict[str, float]:
        """Evaluate the present step; only the first process knows the numbers."""
        assert self._evaluate is not None
        model = self._averaging.judged(recipe).to(device)
        was_training = model.training
        model.eval()
        found = self._evaluate.find(model, device, rank, world)
        if process_count() > 1:
            gathered: list[list[Result] | None] = [None] * world
            torch.distributed.all_gather_object(gathered, found)
            found = [one for part in gathered for one in part or ()]
        if was_training:
            recipe.train()
        if rank == 0:
            self.values = self._evaluate.score(found)
            self._run.append_evaluation(recipe.done, self.values)
        return self.values
