"""How each producer is loaded, by name. A loader imports its module when it is called.

`schemas/registry.py` holds what can be said of them without torch.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...schemas.errors import UserError
from .contract import Loaded

if TYPE_CHECKING:
    from .detector import TrainedDetector

Trained = Callable[[], "TrainedDetector | None"]  # the trained model that was named, if one was


def _saliency(config: Any, trained: Trained) -> Loaded:
    from .saliency.producer import load_saliency

    del trained
    return load_saliency(config)


def _detector(config: Any, trained: Trained) -> Loaded:
    from .detector import LoadedDetectorProducer

    del config
    model = trained()
    if model is None:
        raise UserError("Labelling with a detector needs a trained one: name the folder of its run with --model.")
    return LoadedDetectorProducer(model)


def _merge(config: Any, trained: Trained) -> Loaded:
    from .merge.producer import load_merge

    del trained
    return load_merge(config)


def _ncut(config: Any, trained: Trained) -> Loaded:
    from .ncut.producer import load_ncut

    del trained
    return load_ncut(config)


LOADERS: dict[str, Callable[[Any, Trained], Loaded]] = {
    "saliency": _saliency,
    "detector": _detector,
    "merge": _merge,
    "ncut": _ncut,
}
