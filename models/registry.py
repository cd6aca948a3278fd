"""Detectors by name. Their module is imported when one is built."""

from collections.abc import Callable

from ..schemas.errors import UserError
from .backbones.base import Backbone
from .detector import Detector


def _knet() -> type[Detector]:
    from .queries.knet.model import KNet

    return KNet


def _mask2former() -> type[Detector]:
    from .queries.mask2former.model import Mask2Former

    return Mask2Former


def _queryinst() -> type[Detector]:
    from .queries.queryinst.model import QueryInst

    return QueryInst


DETECTORS: dict[str, Callable[[], type[Detector]]] = {
    "knet": _knet,
    "mask2former": _mask2former,
    "queryinst": _queryinst,
}


def build_detector(name: str, backbone: Backbone, num_classes: int, **options: float) -> Detector:
    """An untrained detector around a backbone, its fresh parameters drawn from torch's global generator.

    `options` are the keywords of its class. Raises UserError for an unknown name.
    """
    if name not in DETECTORS:
        raise UserError(f"there is no detector {name!r}: choose one of {', '.join(DETECTORS)}")
    return DETECTORS[name]()(backbone, num_classes, **options)
