"""What all backbones have in common.

Shape legend: B images, H W pixels; a feature map of stride s has ceil(H / s) rows.
"""

import copy
import math
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = ("c2", "c3", "c4", "c5")
Take = Literal["tokens", "block", "keys"]  # of a block of a ViT


class Backbone(nn.Module):
    """A feature extractor on a pyramid of grids.

    `channels` and `strides` describe each level it can return, finest first. The caller normalises: `forward` takes
    (rgb - mean) / std, with `mean` and `std` on the 0..255 scale of decoded pixels. Sides of its input must be
    multiples of `multiple` pixels.

    `stem` is how the names of its first layers' parameters begin, which training may leave as they are.
    `precision` is the arithmetic it wants where none is asked for, None for what the hardware is fast at. `version`
    is the identity of features that no weights determine: raise it whenever they change.
    """

    channels: dict[str, int]
    strides: dict[str, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    multiple: int = 1
    stem: tuple[str, ...] = ()
    precision: ClassVar[Literal["fp32", "bf16", "fp16"] | None] = None
    version: ClassVar[str | None] = None

    if TYPE_CHECKING:  # nn.Module types its calls as Any

        def __call__(self, images_B3HW: Tensor, level: str = "c5") -> dict[str, Tensor]: ...  # noqa: D102

    def forward(self, images_B3HW: Tensor, level: str = "c5") -> dict[str, Tensor]:
        """Normalised images [B, 3, H, W] to feature maps, from the finest level up to `level`."""
        raise NotImplementedError

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of its levels, finest first."""
        return tuple(self.strides)

    def stretch(self, images_B3HW: Tensor, level: str) -> Tensor:
        """Images enlarged to whole cells of the coarsest level. Raises ValueError for a level that there is not."""
        if level not in self.strides:
            raise ValueError(f"there is no level {level!r}: choose one of {', '.join(self.strides)}")
        coarsest = max(self.strides.values())
        size = [math.ceil(side / coarsest) * coarsest for side in images_B3HW.shape[2:]]
        if list(images_B3HW.shape[2:]) == size:
            return images_B3HW
        return F.interpolate(images_B3HW, size, mode="bilinear", align_corners=False)

    def folded(self) -> Self:
        """A copy for inference, in eval mode, with everything merged that then need not be computed apart."""
        return copy.deepcopy(self).eval()
