"""Images that were passed over are written down, by every process."""

from typing import Any

import lightning

from ....store.run import Run
from .base import as_recipe


class SkippedImages(lightning.Callback):
    """Notes each image once; `count` is how many all processes had noted at the start, and this one since."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._known = set(run.read_skipped())

    @property
    def count(self) -> int:
        """Images passed over, as far as this process knows."""
        return len(self._known)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,  # noqa: ARG002
        batch: Any,
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """After each part of a batch."""
        fresh = {one.index: one for one in batch.skipped if one.index not in self._known}
        if fresh:
            self._known |= set(fresh)
            self._run.append_skipped(trainer.global_rank, list(fresh.values()))
            as_recipe(pl_module).check_skipped(self.count)
