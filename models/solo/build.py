"""From a configuration to a model."""

from ...schemas.training.solo import SoloConfig
from ..backbones.base import Backbone
from .model import Solo
from .options import Options


def build(backbone: Backbone, num_classes: int, config: SoloConfig) -> Solo:
    """A model with fresh parameters beside the backbone's. Raises UserError where the backbone does not fit."""
    return Solo(backbone, num_classes, Options(**config.model_dump()))
