"""Formats of masks by name."""

from collections.abc import Callable, Mapping
from pathlib import Path

from ...schemas.labels.imported import MaskFormat
from .base import MaskFiles
from .coco import CocoMasks
from .png import PngMasks
from .sam import SamMasks
from .yolo import YoloMasks

FORMATS: Mapping[MaskFormat, Callable[[Path], MaskFiles]] = {
    "coco": CocoMasks,
    "yolo": YoloMasks,
    "png": PngMasks,
    "sam": SamMasks,
}


def guess_format(path: Path) -> MaskFormat:
    """What a file or folder most likely holds."""
    if not path.is_dir():
        return "coco"
    for suffix, name in (("metadata.csv", "sam"), (".json", "sam"), (".png", "png")):
        if next(path.rglob(f"*{suffix}"), None) is not None:
            return name  # type: ignore[return-value]
    return "yolo"
