"""Numbers that other people's programs computed, where the folder beside the checkout is there."""

from pathlib import Path

import pytest
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from saliency_prompt.models.backbones.base import LEVELS, Backbone
from saliency_prompt.models.detector import Found, Size, Targets
from saliency_prompt.stages.paste import Frame, paste

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


def close(found: Tensor, wanted: Tensor) -> None:
    """Equal up to sums in another order: what processors differ by grows with the numbers that are summed."""
    atol = 1e-4 + 1e-5 * wanted.abs().max().item() if wanted.numel() else 0.0
    torch.testing.assert_close(found, wanted, atol=atol, rtol=2e-4)


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


def full_masks(found: Found, padded: Size, resized: Size, stored: Size) -> Tensor:
    """The masks at the size of the stored image, drawn from their RLEs: bool [n, H, W]."""
    boxes = None if found.boxes is None else found.boxes.detach().numpy()
    pasted = paste(found.maps.detach().numpy(), boxes, Frame(padded, resized, stored))
    drawn = torch.zeros(len(found), *stored, dtype=torch.bool)
    for place, counts in zip(pasted.kept.tolist(), pasted.counts, strict=True):
        drawn[place] = torch.from_numpy(coco_mask.decode({"size": list(stored), "counts": counts}).astype(bool))
    return drawn
