"""Training a detector on labels, whoever made them."""

from torch import Tensor

from ...models.detector import Targets
from ..instances.samples import Batch
from ..instances.training import InstanceRecipe
from ..training.recipe import average_count


class Supervised(InstanceRecipe):
    """The detector's own losses."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """See `Recipe`."""
        self.host.advance(self.step / (self.schedule.epoch_steps * self.schedule.accumulate))
        return self.host.losses(self.normalise(batch.images), batch.resized, self.targets(batch), average_count)

    def targets(self, batch: Batch) -> list[Targets]:
        """What the detector learns from."""
        return batch.targets()
