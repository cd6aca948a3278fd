"""Small region-based models, and images with objects of known shape."""

from typing import Any

import torch

from saliency_prompt.models.backbones.registry import build_backbone
from saliency_prompt.models.detector import Targets
from saliency_prompt.models.mask_rcnn.model import MaskRCNN, build
from saliency_prompt.schemas.load import parse_settings
from saliency_prompt.schemas.training.contrastmask import (
    CONTRASTMASK_PRESETS,
    MASKRCNN_PRESETS,
    ContrastMaskConfig,
    MaskRCNNConfig,
)

SIZES = [(96, 128), (80, 100)]


def objects(count: int, has_mask: list[bool] | None = None, size: tuple[int, int] = (96, 128)) -> Targets:
    """Boxes with a corner cut out, in a row; labels 0, 1, 2, 0, ..."""
    masks = torch.zeros(count, *size, dtype=torch.uint8)
    boxes = torch.zeros(count, 4)
    for i in range(count):
        x, y = 6 + 18 * i, 8 + 9 * i
        masks[i, y : y + 36, x : x + 30] = 1
        masks[i, y : y + 12, x : x + 12] = 0
        boxes[i] = torch.tensor([x, y, x + 30, y + 36])
    known = None if has_mask is None else torch.tensor(has_mask)
    return Targets(masks, torch.arange(count) % 3, boxes, torch.ones(count), known)


def images(count: int = 2, seed: int = 5) -> torch.Tensor:
    """Noise of 96 x 128."""
    return torch.randn(count, 3, 96, 128, generator=torch.Generator().manual_seed(seed))


def contrast_mask(**changes: Any) -> MaskRCNN:
    """A tiny ContrastMask of 3 classes with differences from its preset; always the same parameters."""
    tiny = CONTRASTMASK_PRESETS["tiny"]["model"]
    values = {**tiny, **changes, "contrast": {**tiny["contrast"], **changes.get("contrast", {})}}
    torch.manual_seed(0)
    return build(build_backbone("resnet18"), 3, parse_settings(ContrastMaskConfig, values))


def plain(backbone: str = "resnet18", **changes: Any) -> MaskRCNN:
    """A tiny Mask R-CNN of 3 classes without any addition; always the same parameters."""
    torch.manual_seed(0)
    values = {**MASKRCNN_PRESETS["tiny"]["model"], **changes}
    return build(build_backbone(backbone), 3, parse_settings(MaskRCNNConfig, values))
