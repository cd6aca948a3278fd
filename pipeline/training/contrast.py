"""What a contrastive head sees in a photograph, as a picture."""

from pathlib import Path

import torch

from ...models.mask_rcnn.model import MaskRCNN
from ...schemas.errors import UserError
from ...stages.contrast_picture import draw_contrast, look
from ..sources import open_source
from .model import load_detector


def contrast(run: Path, photo: str, out: Path, device: torch.device, *, most: int, min_score: float) -> int:
    """Draw it for the instances found, best first, and give their number. Raises UserError."""
    model = load_detector(run)
    module = model.module.to(device)
    if not isinstance(module, MaskRCNN):
        raise UserError(
            f"{run} is a run of {model.card.model}, which has no contrastive head: give one of contrastmask."
        )
    ref = next(iter(open_source(photo).refs()), None)
    if ref is None:
        raise UserError(f"{photo} is no photograph: give the path of one.")
    limit = model.config.data.max_pixels
    result = look(module, ref, model.size, most=most, min_score=min_score, max_pixels=limit)
    draw_contrast(result, out)
    return len(result.seen.found)
