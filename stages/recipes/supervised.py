"""Training a detector on labels, whoever made them."""

from collections.abc import Callable

from torch import Tensor

from ...models.detector import Detector, Targets
from ...schemas.training.sections import SupervisedConfig
from ..instances.augment import Samples
from ..instances.samples import Batch
from ..instances.training import InstanceRecipe
from ..repeat_factors import Floats
from ..training.recipe import average_count


class Supervised(InstanceRecipe):
    """The detector's own losses. `targets`: what it learns from in a batch, where that is more than objects."""

    def __init__(
        self,
        host: Detector,
        config: SupervisedConfig,
        data: Samples,
        factors_I: Floats | None = None,
        targets: Callable[[Batch], list[Targets]] = Batch.targets,
    ) -> None:
        super().__init__(host, config, data, factors_I)
        self._targets = targets

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """See `Recipe`."""
        self.host.advance(self.step / (self.schedule.epoch_steps * self.schedule.accumulate))
        return self.host.losses(self.normalise(batch.images), batch.resized, self._targets(batch), average_count)
