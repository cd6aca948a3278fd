"""Detectors by name. Their module is imported when one is built."""

from collections.abc import Callable

from ..schemas.errors import UserError
from ..schemas.training.contrastmask import MaskRCNNTraining
from ..schemas.training.freesolo import FreeSoloTraining
from ..schemas.training.knet import KNetPretraining, KNetTraining
from ..schemas.training.mask2former import Mask2FormerPretraining, Mask2FormerTraining
from ..schemas.training.queryinst import QueryInstPretraining, QueryInstTraining
from ..schemas.training.sections import SupervisedConfig
from ..schemas.training.solo import MattingSoloTraining, PanopticSoloTraining, SoloTraining
from .backbones.base import Backbone
from .backbones.simple_pyramid import as_pyramid
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
        norm_groups=model.norm_groups,
        class_weight=loss.classes,
        dice_weight=loss.dice,
        mask_weight=loss.mask,
        semantic_weight=loss.semantic,
    )


def _mask2former(config: SupervisedConfig, backbone: Backbone, num_classes: int) -> Detector:
    from .queries.mask2former.model import Mask2Former

    assert isinstance(config, Mask2FormerTraining | Mask2FormerPretraining)
    model, loss = config.model, config.loss
    return Mask2Former(
        backbone,
        num_classes,
        num_queries=model.queries,
        channels=model.channels,
        stages=model.stages,
        hidden=model.hidden,
        encoder_stages=model.encoder_stages,
        encoder_hidden=model.encoder_hidden,
        encoder_points=model.encoder_points,
        class_weight=loss.classes,
        mask_weight=loss.mask,
        dice_weight=loss.dice,
        points=loss.points,
    )


def _queryinst(config: SupervisedConfig, backbone: Backbone, num_classes: int) -> Detector:
    from .queries.queryinst.model import QueryInst

    assert isinstance(config, QueryInstTraining | QueryInstPretraining)
    model, loss = config.model, config.loss
    return QueryInst(
        backbone,
        num_classes,
        num_queries=model.queries,
        channels=model.channels,
        stages=model.stages,
        hidden=model.hidden,
        dynamic_channels=model.dynamic_channels,
        repeat_masks=model.mask_logits == "repeat",
        class_weight=loss.classes,
        l1_weight=loss.l1,
        giou_weight=loss.giou,
        mask_weight=loss.mask,
    )


def _mask_rcnn(config: SupervisedConfig, backbone: Backbone, num_classes: int) -> Detector:
    from .mask_rcnn.model import build

    assert isinstance(config, MaskRCNNTraining)
    return build(backbone, num_classes, config.model)


def _solo(config: SupervisedConfig, backbone: Backbone, num_classes: int) -> Detector:
    from .solo.build import build

    assert isinstance(config, SoloTraining)
    return build(backbone, num_classes, config.model)


def _freesolo(config: SupervisedConfig, backbone: Backbone, num_classes: int) -> Detector:
    from .solo.build import build_free

    assert isinstance(config, FreeSoloTraining)
    return build_free(backbone, num_classes, config.model, config.weak)


def _panoptic(config: SupervisedConfig, backbone: Backbone, num_classes: int) -> Detector:
    from .solo.build import build_panoptic

    assert isinstance(config, PanopticSoloTraining)
    panoptic = config.model.panoptic
    return build_panoptic(backbone, num_classes, config.model, num_stuff=panoptic.stuff, panoptic=panoptic)


def _matting(config: SupervisedConfig, backbone: Backbone, num_classes: int) -> Detector:
    from .solo.build import build_matting

    assert isinstance(config, MattingSoloTraining)
    return build_matting(backbone, num_classes, config.model, matting=config.model.matting)


Builder = Callable[[SupervisedConfig, Backbone, int], Detector]
DETECTORS: dict[str, Builder] = {
    "knet": _knet,
    "queryinst": _queryinst,
    "mask2former": _mask2former,
    "maskrcnn": _mask_rcnn,
    "contrastmask": _mask_rcnn,
    "solo": _solo,
    "decoupled-solo": _solo,
    "decoupled-solo-light": _solo,
    "solov2": _solo,
    "solov2-light": _solo,
    "freesolo": _freesolo,
    "solov2-panoptic": _panoptic,
    "solov2-matting": _matting,
}


def build_detector(config: SupervisedConfig, backbone: Backbone, num_classes: int) -> Detector:
    """An untrained detector around a backbone, its fresh parameters drawn from torch's global generator.

    A backbone of one map gets a pyramid. Raises UserError for an unknown name, or a backbone without a pyramid.
    """
    name = config.model.host
    if name not in DETECTORS:
        raise UserError(f"there is no detector {name!r}: choose one of {', '.join(DETECTORS)}")
    return DETECTORS[name](config, as_pyramid(backbone), num_classes)
