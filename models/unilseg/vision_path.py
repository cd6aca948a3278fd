"""The vision path: from fused maps, top down, to one embedding per pixel at stride 4 (UniLSeg, section 3.2, Eq. 2-5).

On each level a block attends over cells and words together and keeps the cells, then from cells to words.
`paper`: positions are part of the cells' tokens in the first, f_b = LN(attention) + f_c, and there are none in the
second. `code`: positions on queries and keys alone, of both, and LN(f_c + attention). Attention over cells runs on
maps reduced by 8, 4, 2, 1 at strides 4 to 32.

Shape legend: B pairs, L words, C width, N cells of a map of H x W.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .fusion import DROPOUT, HEADS, Kind
from .positions import sine_map, sine_words
from .text import Text

REDUCTIONS = (8, 4, 2, 1)


def conv_norm(inside: int, outside: int, kernel: int) -> nn.Sequential:
    """Convolution, batch norm, ReLU; the size stays."""
    return nn.Sequential(
        nn.Conv2d(inside, outside, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outside), nn.ReLU()
    )


class VisionLanguageBlock(nn.Module):
    """Of one level."""

    def __init__(self, kind: Kind, channels: int, hidden: int, reduction: int) -> None:
        super().__init__()
        self.kind, self.reduction = kind, reduction
        self.over_all = nn.MultiheadAttention(channels, HEADS, dropout=DROPOUT, batch_first=True)
        self.over_words = nn.MultiheadAttention(channels, HEADS, dropout=DROPOUT, batch_first=True)
        self.feed = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(hidden, channels)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))
        self.dropout = nn.Dropout(DROPOUT)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, map_BCHW: Tensor, words_BLC: Tensor, padding_BL: Tensor) -> Tensor:
        """A map of the same size."""
        height, width = map_BCHW.shape[2:]
        channels = map_BCHW.shape[1]
        cells = _cells(map_BCHW)
        places = sine_map(height, width, channels, cells)
        whole = self.dropout(self._over_all(cells, places, (height, width), words_BLC, padding_BL))
        cells = self.norms[0](whole) + cells if self.kind == "paper" else self.norms[0](cells + whole)
        queries, keys = cells, words_BLC
        if self.kind == "code":
            queries, keys = cells + places, words_BLC + sine_words(words_BLC.shape[1], channels, words_BLC)
        heard, _ = self.over_words(queries, keys, words_BLC, key_padding_mask=padding_BL, need_weights=False)
        cells = self.norms[1](cells + self.dropout(heard))
        cells = self.norms[2](cells + self.dropout(self.feed(cells)))
        return _map(cells, (height, width))

    def _over_all(
        self, cells: Tensor, places: Tensor, size: tuple[int, int], words_BLC: Tensor, padding_BL: Tensor
    ) -> Tensor:
        """Attention over cells and words, of which the cells are kept: [B, N, C]."""
        small = (max(1, size[0] // self.reduction), max(1, size[1] // self.reduction))

        def reduced(one: Tensor) -> Tensor:
            if self.reduction == 1:
                return one
            return _cells(F.interpolate(_map(one, size), small, mode="bilinear", align_corners=False))

        queries = torch.cat([reduced(cells + places), words_BLC], dim=1)
        values = queries if self.kind == "paper" else torch.cat([reduced(cells), words_BLC], dim=1)
        count = small[0] * small[1] if self.reduction > 1 else cells.shape[1]
        mask = torch.cat([padding_BL.new_zeros(len(cells), count), padding_BL], dim=1)
        seen, _ = self.over_all(queries, queries, values, key_padding_mask=mask, need_weights=False)
        seen = seen[:, :count]
        if self.reduction > 1:
            seen = _cells(F.interpolate(_map(seen, small), size, mode="bilinear", align_corners=False))
        return seen  # type: ignore[no-any-return]


class VisionPath(nn.Module):
    """Four fused maps, finest first, to pixel embeddings [B, embedding, H / 4, W / 4]."""

    def __init__(
        self, kind: Kind, inside: tuple[int, ...], words: int, channels: int, hidden: int, embedding: int
    ) -> None:
        super().__init__()
        self.project = nn.Identity() if words == channels else nn.Linear(words, channels)
        self.lateral = nn.ModuleList(conv_norm(width, channels, 1) for width in inside)
        self.output = nn.ModuleList(conv_norm(channels, channels, 3) for _ in inside)
        self.blocks = nn.ModuleList(
            nn.ModuleList()
            if kind == "none"
            else nn.ModuleList([VisionLanguageBlock(kind, channels, hidden, REDUCTIONS[i])])
            for i in range(len(inside))
        )
        self.last = conv_norm(channels, embedding, 3)

    def forward(self, maps: list[Tensor], text: Text) -> Tensor:
        """See the class."""
        words = self.project(text.words)
        above: Tensor | None = None
        for level in reversed(range(len(maps))):
            one = self.lateral[level](maps[level])
            for block in self.blocks[level]:  # type: ignore[attr-defined]
                one = block(one, words, text.padding)
            if above is not None:
                one = one + F.interpolate(above, one.shape[2:], mode="bilinear", align_corners=False)
            above = self.output[level](one)
        return self.last(above)  # type: ignore[no-any-return]


def _cells(map_BCHW: Tensor) -> Tensor:
    return map_BCHW.flatten(2).transpose(1, 2)


def _map(cells_BNC: Tensor, size: tuple[int, int]) -> Tensor:
    return cells_BNC.transpose(1, 2).reshape(len(cells_BNC), -1, *size)
