"""SOLOv2's extensions in training: things and stuff, and mattes."""

from ...models.detector import Targets
from ..instances.matte_samples import matting_targets
from ..instances.panoptic_samples import panoptic_targets
from ..instances.samples import Batch
from .supervised import Supervised


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
