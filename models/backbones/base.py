"""What all backbones have in common.

Shape legend: B images, H W pixels; a feature map has one of the strides 4, 8, 16, 32, and ceil(H / stride) rows.
"""

from typing import TYPE_CHECKING

from torch import Tensor, nn

LEVELS = ("c2", "c3", "c4", "c5")


class Backbone(nn.Module):
    """A feature extractor on a pyramid of grids.

    `channels` and `strides` describe each level it can return. The caller normalises: `forward` takes
    (rgb - mean) / std, with `mean` and `std` on the 0..255 scale of decoded pixels.
    """

    channels: dict[str, int]
    strides: dict[str, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    if TYPE_CHECKING:  # nn.Module types its calls as Any

        def __call__(self, images_B3HW: Tensor, level: str = "c5") -> dict[str, Tensor]: ...  # noqa: D102

    def forward(self, images_B3HW: Tensor, level: str = "c5") -> dict[str, Tensor]:
        """Normalised images [B, 3, H, W] to feature maps, from the finest level up to `level`."""
        raise NotImplementedError
