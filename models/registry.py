"""Detectors by name. Their module is imported when one is built."""

from collections.abc import Callable

from ..schemas.errors import UserError
from ..schemas.training.knet import KNetPretraining, KNetTraining
from ..schemas.training.sections import SupervisedConfig
from .backbones.base import Backbone
from .detector import Detector


def _knet(config: SupervisedConfig, backbone: Backbone, num_classes: int) -> Detector:
    from .queries.knet.model import KNet

    assert isinstance(config, KNetTraining | KNetPretraining)
    model, loss = config.model, config.loss
    return KNet(
        backbone,
        num_classes,
        num_queries=model.queries,
        channels=model.channels,
        stages=model.stages,
        hidden=model.hidden,
        class_weight=loss.classes,
        dice_weight=loss.dice,
        mask_weight=loss.mask,
        semantic_weight=loss.semantic,
    )


Builder = Callable[[SupervisedConfig, Backbone, int], Detector]
DETECTORS: dict[str, Builder] = {
    "knet": _knet,
}


def build_detector(config: SupervisedConfig, backbone: Backbone, num_classes: int) -> Detector:
    """An untrained detector around a backbone, its fresh parameters drawn from torch's global generator.

    Raises UserError for an unknown name.
    """
    name = config.model.host
    if name not in DETECTORS:
        raise UserError(f"there is no detector {name!r}: choose one of {', '.join(DETECTORS)}")
    return DETECTORS[name](config, backbone, num_classes)
