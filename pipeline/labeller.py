"""What labels photographs, in a form that every machine can load for itself."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ..schemas.labels.base import LabelConfig
from ..schemas.registry import producer_of
from ..stages.producers.contract import Loaded
from ..stages.producers.registry import LOADERS
from .process import without_helpers

if TYPE_CHECKING:  # which import torchvision: seconds, that a run without a trained model need not spend
    from ..stages.producers.detector import TrainedDetector
    from ..stages.referring.answer import NamedSpeaker

TrainedModel: TypeAlias = "TrainedDetector | NamedSpeaker"


def open_run(folder: Path) -> TrainedModel:
    """The model of a training run. Raises UserError if there is none."""
    from ..store.run import Run
    from .training.model import load_detector
    from .training.referring import load_unilseg

    return load_unilseg(folder) if Run(folder).read_card().model == "unilseg" else load_detector(folder)


@dataclass(frozen=True, slots=True)
class Labeller:
    """A producer by its configuration and, for one that needs it, the folder of a training run.

    Picklable: workers are sent this, and load weights where they are. `open_run` reads the folder.
    """

    config: LabelConfig
    run: str | None = None
    open_run: Callable[[Path], TrainedModel] = open_run

    def load(self) -> Loaded:
        """Its weights, fetched and checked. Raises UserError where the user can help."""
        with without_helpers():
            return LOADERS[producer_of(self.config)](self.config, self._trained)

    def _trained(self) -> "TrainedModel | None":
        return None if self.run is None else self.open_run(Path(self.run))
