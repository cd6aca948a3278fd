"""Pre-fusion: words enter the image encoder's maps (UniLSeg, section 3.2, Eq. 1).

`paper`: f_c = softmax(G_q(f_v) G_k(f_w)^T / sqrt(C)) G_v(f_w) on the three coarser levels; no residual, no positions.
`code`: as released: eight heads, sine positions on the queries, added to the map, on all four levels.

Shape legend: B pairs, L words, C channels of a map, H W its cells.
"""

from typing import Literal

from torch import Tensor, nn

from .positions import sine_map
from .text import Text

Kind = Literal["paper", "code", "none"]
HEADS = 8
DROPOUT = 0.1


class Fusion(nn.Module):
    """Of one level."""

    def __init__(self, kind: Kind, channels: int, words: int) -> None:
        super().__init__()
        self.project = nn.Linear(words, channels)
        self.residual = kind == "code"
        heads, dropout = (HEADS, DROPOUT) if kind == "code" else (1, 0.0)
        self.attention = nn.MultiheadAttention(channels, heads, dropout=dropout, batch_first=True)

    def forward(self, map_BCHW: Tensor, text: Text) -> Tensor:
        """The map, fused."""
        _, channels, height, width = map_BCHW.shape
        cells_BNC = map_BCHW.flatten(2).transpose(1, 2)
        words = self.project(text.words)
        queries = cells_BNC + sine_map(height, width, channels, cells_BNC) if self.residual else cells_BNC
        fused, _ = self.attention(queries, words, words, key_padding_mask=text.padding, need_weights=False)
        if self.residual:
            fused = cells_BNC + fused
        return fused.transpose(1, 2).unflatten(2, (height, width))  # type: ignore[no-any-return]


class PreFusion(nn.Module):
    """Of all levels, finest first; a level that is not fused passes."""

    def __init__(self, kind: Kind, channels: tuple[int, ...], words: int) -> None:
        super().__init__()
        first = {"code": 0, "paper": 1, "none": len(channels)}[kind]
        self.first = first
        self.levels = nn.ModuleList(Fusion(kind, width, words) for width in channels[first:])

    def forward(self, maps: list[Tensor], text: Text) -> list[Tensor]:
        """The maps, fused."""
        fused = [level(one, text) for level, one in zip(self.levels, maps[self.first :], strict=True)]
        return [*maps[: self.first], *fused]
