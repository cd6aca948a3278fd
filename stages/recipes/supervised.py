"""Training a detector on labels, whoever made them; SOLOv2's extensions learn things and stuff, and mattes."""

from torch import Tensor

from ...models.detector import Targets
from ..instances.matte_samples import matting_targets
from ..instances.panoptic_samples import panoptic_targets
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


class Panoptic(Supervised):
    """Objects, and the class of every pixel."""

    def targets(self, batch: Batch) -> list[Targets]:
        """See `Supervised`."""
        return panoptic_targets(batch)


class Matting(Supervised):
    """Objects and their alphas."""

    def targets(self, batch: Batch) -> list[Targets]:
        """See `Supervised`."""
        return matting_targets(batch)
