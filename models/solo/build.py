"""From a configuration to a model."""

from dataclasses import fields

from ...schemas.training.freesolo import FreeSoloConfig, WeakLossConfig
from ...schemas.training.solo import MattingConfig, PanopticConfig, SoloConfig
from ..backbones.base import Backbone
from .free import FreeSolo, WeakLoss
from .matting import MattingSolo
from .model import Solo
from .options import Options
from .panoptic import PanopticSolo


def build(backbone: Backbone, num_classes: int, config: SoloConfig) -> Solo:
    """A model with fresh parameters beside the backbone's. Raises UserError where the backbone does not fit."""
    return Solo(backbone, num_classes, options_of(config))


def build_free(backbone: Backbone, num_classes: int, config: FreeSoloConfig, weak: WeakLossConfig) -> FreeSolo:
    """`build` with weak losses and an embedding."""
    loss = WeakLoss(
        masks=weak.masks,
        average=weak.average,
        maximum=weak.maximum,
        pairwise=weak.pairwise,
        similar=weak.similar,
        reduction=weak.reduction,
        embedding=weak.embedding,
    )
    return FreeSolo(backbone, num_classes, options_of(config), loss)


def build_panoptic(
    backbone: Backbone, num_classes: int, config: SoloConfig, *, num_stuff: int, panoptic: PanopticConfig
) -> PanopticSolo:
    """`build` with a branch for `num_stuff` classes of stuff."""
    return PanopticSolo(
        backbone, num_classes, options_of(config), num_stuff=num_stuff, semantic_weight=panoptic.semantic_weight
    )


def build_matting(backbone: Backbone, num_classes: int, config: SoloConfig, *, matting: MattingConfig) -> MattingSolo:
    """`build` with details at full resolution; start it from the weights of a plain SOLOv2."""
    return MattingSolo(
        backbone,
        num_classes,
        options_of(config),
        details=matting.details,
        dice_weight=matting.dice_weight,
        mae_weight=matting.mae_weight,
        band=matting.band,
    )


def options_of(config: SoloConfig) -> Options:
    """The model's own options."""
    return Options(**config.model_dump(include={field.name for field in fields(Options)}))
