"""The image encoder: Swin (Liu et al. 2021) from torchvision, with a norm on each of its four maps.

Shape legend: B images, H W pixels; map i has stride 4 * 2^i and width * 2^i channels.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformer


@dataclass(frozen=True, slots=True)
class SwinShape:
    """Sizes; the defaults are Swin-B's."""

    width: int = 128
    depths: tuple[int, int, int, int] = (2, 2, 18, 2)
    heads: tuple[int, int, int, int] = (4, 8, 16, 32)
    window: int = 7
    drop_path: float = 0.2

    @property
    def channels(self) -> tuple[int, int, int, int]:
        """Of the four maps, finest first."""
        return self.width, self.width * 2, self.width * 4, self.width * 8


class Swin(nn.Module):
    """Images to maps of strides 4, 8, 16 and 32."""

    def __init__(self, shape: SwinShape) -> None:
        super().__init__()
        whole = SwinTransformer(
            [4, 4],
            shape.width,
            list(shape.depths),
            list(shape.heads),
            [shape.window, shape.window],
            stochastic_depth_prob=shape.drop_path,
            num_classes=1,
        )
        self.features = whole.features  # patches, then stages with mergings between them
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for channels in shape.channels)

    def forward(self, images_B3HW: Tensor) -> list[Tensor]:
        """Normalised images to four maps [B, C_i, H / 4 / 2^i, W / 4 / 2^i]."""
        maps: list[Tensor] = []
        state = images_B3HW
        for place, part in enumerate(self.features):
            state = part(state)
            if place % 2 == 1:  # a stage
                maps.append(self.norms[place // 2](state).permute(0, 3, 1, 2).contiguous())
        return maps
