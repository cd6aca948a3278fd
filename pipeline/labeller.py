"""What labels photographs, in a form that every machine can load for itself."""

from dataclasses import dataclass

from ..schemas.labels.base import LabelConfig
from ..schemas.registry import producer_of
from ..stages.producers.contract import Loaded
from ..stages.producers.registry import LOADERS
from .process import without_helpers


@dataclass(frozen=True, slots=True)
class Labeller:
    """A producer by its configuration. Picklable: workers are sent this, and load weights where they are."""

    config: LabelConfig

    def load(self) -> Loaded:
        """Its weights, fetched and checked. Raises UserError where the user can help."""
        with without_helpers():
            return LOADERS[producer_of(self.config)](self.config)
