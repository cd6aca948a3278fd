"""What the callbacks share: they act when a step's batch is complete."""

from typing import Any

import lightning

from ..recipe import AnyRecipe, Recipe


class StepCallback(lightning.Callback):
    """Calls `after_step` after every optimizer step."""

    def after_step(self, trainer: lightning.Trainer, recipe: AnyRecipe) -> None:
        """Act."""
        raise NotImplementedError

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """After each part of a batch."""
        recipe = as_recipe(pl_module)
        if recipe.step % recipe.schedule.accumulate == 0:
            self.after_step(trainer, recipe)


def as_recipe(module: lightning.LightningModule) -> AnyRecipe:
    """What `fit` trains is a recipe."""
    assert isinstance(module, Recipe)
    return module


def ends(recipe: AnyRecipe) -> bool:
    """Whether this call's last step is done."""
    return recipe.step == recipe.stop_at


def looks(recipe: AnyRecipe) -> bool:
    """Whether the curves get an entry at this step: the moment at which the device is waited for anyway."""
    done, schedule = recipe.done, recipe.schedule
    return done % recipe.loop.log_every == 0 or done % schedule.epoch_steps == 0 or ends(recipe)
