"""An average of the model over steps, for recipes that ask for one."""

from typing import Any

import lightning
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..checkpoints import AVERAGED, Checkpoint
from ..recipe import AnyRecipe
from .base import StepCallback, as_recipe


class Averaging(StepCallback):
    """Keeps an exponential moving average of `recipe.averaged()`; what is evaluated and later loaded is the average."""

    def __init__(self, recipe: AnyRecipe, found: Checkpoint | None) -> None:
        self.model: AveragedModel | None = None
        if recipe.loop.ema:
            self.model = AveragedModel(
                recipe.averaged(),
                multi_avg_fn=get_ema_multi_avg_fn(recipe.loop.ema),  # type: ignore[no-untyped-call]
                use_buffers=True,
            )
            if found is not None and found.averaged is not None:
                self.model.load_state_dict(found.averaged)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        """Follow the model to its device."""
        if self.model is not None:
            self.model.to(pl_module.device)

    def after_step(self, trainer: lightning.Trainer, recipe: AnyRecipe) -> None:  # noqa: ARG002
        """See `StepCallback`."""
        if self.model is not None:
            self.model.update_parameters(recipe.averaged())

    def on_save_checkpoint(
        self,
        trainer: lightning.Trainer,  # noqa: ARG002
        pl_module: lightning.LightningModule,  # noqa: ARG002
        checkpoint: dict[str, Any],
    ) -> None:
        """Add the average."""
        if self.model is not None:
            checkpoint[AVERAGED] = self.model.state_dict()

    def judged(self, recipe: AnyRecipe) -> torch.nn.Module:
        """The model to evaluate."""
        if self.model is None:
            return as_recipe(recipe).averaged()
        module: torch.nn.Module = self.model.module
        return module
