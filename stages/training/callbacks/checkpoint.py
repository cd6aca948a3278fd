"""When checkpoints are written."""

import lightning

from ....store.run import Run
from ..averages import is_finite
from ..checkpoints import save_checkpoint
from ..recipe import AnyRecipe
from .base import StepCallback, as_recipe, ends
from .curves import not_finite
from .evaluation import Evaluation


class Checkpoints(StepCallback):
    """Every so many steps, at the end of a call however it comes, and before an evaluation, which a crash may end."""

    def __init__(self, run: Run, evaluation: Evaluation) -> None:
        self._run, self._evaluation = run, evaluation
        self._saved = -1

    def after_step(self, trainer: lightning.Trainer, recipe: AnyRecipe) -> None:
        """See `StepCallback`."""
        if recipe.done % recipe.loop.checkpoint_every == 0 or ends(recipe) or self._evaluation.due(recipe):
            self._save(trainer, recipe)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """A run that was asked to stop."""
        recipe = as_recipe(pl_module)
        if recipe.step % recipe.schedule.accumulate == 0 and recipe.step and self._saved != recipe.step:
            self._save(trainer, recipe)

    def _save(self, trainer: lightning.Trainer, recipe: AnyRecipe) -> None:
        if not is_finite(recipe):
            raise not_finite(self._run, recipe, "A parameter")
        save_checkpoint(trainer, self._run)
        self._saved = recipe.step
