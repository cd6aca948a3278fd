"""How each producer is loaded, by name. A loader imports its module when it is called.

`schemas/registry.py` holds what can be said of them without torch.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...schemas.errors import UserError
from .contract import Loaded

if TYPE_CHECKING:
    from ..referring.answer import NamedSpeaker
    from .detector import TrainedDetector

Trained = Callable[[], "TrainedDetector | NamedSpeaker | None"]  # the trained model that was named, if one was


def _saliency(config: Any, trained: Trained) -> Loaded:
    from .saliency.producer import load_saliency

    del trained
    return load_saliency(config)


def _detector(config: Any, trained: Trained) -> Loaded:
    from ...models.detector import Detector
    from .detector import LoadedDetectorProducer

    del config
    model = trained()
    if model is None:
        raise UserError("Labelling with a detector needs a trained one: name the folder of its run with --model.")
    if not isinstance(model.module, Detector):
        raise UserError(f"{model.name} is a run of UniLSeg, which is asked in words: `annotate` labels with it.")
    return LoadedDetectorProducer(model)


def _random(config: Any, trained: Trained) -> Loaded:
    from .random import load_random

    del trained
    return load_random(config)


def _imported(config: Any, trained: Trained) -> Loaded:
    from .imported import load_imported

    del trained
    return load_imported(config)


def _annotate(config: Any, trained: Trained) -> Loaded:
    from ...models.unilseg.model import UniLSeg
    from .annotate.load import load_annotator

    model = trained()
    if model is None:
        return load_annotator(config, None)
    if not isinstance(model.module, UniLSeg):
        raise UserError(f"{model.name} knows no texts: name a run of UniLSeg as --referrer.")
    return load_annotator(config, model)


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
    "random": _random,
    "imported": _imported,
    "annotate": _annotate,
    "merge": _merge,
    "ncut": _ncut,
}
