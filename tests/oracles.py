"""Numbers that other people's programs computed, where the folder beside the checkout is there."""

from pathlib import Path

import pytest
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from saliency_prompt.models.backbones.base import LEVELS, Backbone
from saliency_prompt.models.detector import Found, Targets
from saliency_prompt.stages.instances.results import encode_found

FOLDER = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "oracles"
SIZES = [(128, 160), (112, 144)]  # of the two images in the batch
STORED = [(256, 320), (150, 192)]


def read_oracle(name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Inputs and outputs, and weights in fp32 (none where there is no such file)."""
    from safetensors.torch import load_file

    if not (FOLDER / name / "io.safetensors").is_file():
        pytest.skip(f"needs ../shared with data/oracles/{name}")
    weights = FOLDER / name / "weights.safetensors"
    state = load_file(weights) if weights.is_file() else {}
    return load_file(FOLDER / name / "io.safetensors"), {
        key: value.float() if value.is_floating_point() else value for key, value in state.items()
    }


def shared_targets() -> list[Targets]:
    """The objects of the two images that all folders share."""
    io, _ = read_oracle("mmdet_resnet18w16_fpn")
    return [
        Targets(io[f"gt{k}/masks"], io[f"gt{k}/labels"], io[f"gt{k}/bboxes"], torch.ones(len(io[f"gt{k}/labels"])))
        for k in range(2)
    ]


def shared_pyramid() -> dict[str, Tensor]:
    """Their features."""
    io, _ = read_oracle("mmdet_resnet18w16_fpn")
    return {f"p{level}": io[f"fpn/p{level}"] for level in range(2, 6)}


class Given(Backbone):
    """A backbone whose features are given."""

    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def __init__(self, maps: list[Tensor]) -> None:
        super().__init__()
        self.maps = dict(zip(LEVELS, maps, strict=True))
        self.channels = {level: one.shape[1] for level, one in self.maps.items()}
        self.strides = dict(zip(LEVELS, (4, 8, 16, 32), strict=True))

    def forward(self, images_B3HW: Tensor, level: str = "c5") -> dict[str, Tensor]:  # noqa: ARG002
        return self.maps


def unpack(packed: Tensor, width: int) -> Tensor:
    """Bits along the last axis as booleans."""
    shifts = torch.arange(7, -1, -1)
    bits = (packed[..., None].int() >> shifts) & 1
    return bits.flatten(-2)[..., :width].bool()


def stored_masks(found: Found, image: int, stored: tuple[int, int]) -> Tensor:
    """What was found in one of the two images, at another size: [n, H, W], those without a pixel too."""
    made = encode_found(found, padded=SIZES[0], resized=SIZES[image], stored=stored)
    masks = torch.zeros(len(found), *stored, dtype=torch.bool)
    for one, source, label in zip(made.masks, made.sources, made.labels, strict=True):
        place = ((found.sources == int(source)) & (found.labels == int(label))).nonzero()[0, 0]
        masks[place] = torch.from_numpy(coco_mask.decode(one)).bool()
    return masks
