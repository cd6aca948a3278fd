"""Going on exactly where a checkpoint was written."""

from typing import Any

import lightning

from ..checkpoints import STEP, Checkpoint
from .base import as_recipe


class Resume(lightning.Callback):
    """Restores what lightning makes anew: the optimizer's state and the scale of fp16 gradients."""

    def __init__(self, found: Checkpoint | None) -> None:
        self._found = found

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        """Restore."""
        if self._found is None:
            return
        trainer.optimizers[0].load_state_dict(self._found.optimizer)
        plugin = trainer.precision_plugin
        if state := self._found.plugins.get(type(plugin).__qualname__):
            plugin.load_state_dict(state)
        self._found = None

    def on_save_checkpoint(
        self,
        trainer: lightning.Trainer,  # noqa: ARG002
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Add where the run stands."""
        checkpoint[STEP] = as_recipe(pl_module).step
