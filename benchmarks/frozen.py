"""A frozen backbone that computes the maps of an image once: what stands on it trains in a fraction of the time."""

import torch
from torch import Tensor

from saliency_prompt.models.backbones.base import Backbone

Known = dict[tuple[str, int], dict[str, Tensor]]


def remember(backbone: Backbone, known: Known) -> None:
    """Let a backbone keep the maps of every image in `known`, by its pixels, and take them from there."""
    plain = backbone.forward
    backbone.eval().requires_grad_(False)

    def forward(images_B3HW: Tensor, level: str = "c5") -> dict[str, Tensor]:
        maps = []
        for image in images_B3HW:
            key = (level, hash(image.numpy().tobytes()))
            if key not in known:
                with torch.no_grad():
                    known[key] = plain(image[None], level)
            maps.append(known[key])
        return {name: torch.cat([one[name] for one in maps]) for name in maps[0]}

    backbone.forward = forward
