"""Heads whose kernels are learned: SOLO and Decoupled SOLO (thesis, chapter 3).

Shape legend: B images, C channels, K classes, S cells along a side of a level's grid, N chosen cells, h w cells of a
map of masks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import PRIOR_BIAS, Tower, output, resize
from .options import Options

SAMPLES = 4  # along a side of a cell, of the alignment "region"


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """One grid's answer: class logits [B, K, S, S], what masks are made from, and each cell's kernel [B, D, S, S].

    vectors [B, E, S, S]: what a model with an embedding branch says of each cell.
    """

    classes: Tensor
    maps: tuple[Tensor, ...]
    kernels: Tensor | None = None
    vectors: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Of its masks, (height, width) in cells."""
        return self.maps[0].shape[2], self.maps[0].shape[3]


class Head(nn.Module):
    """A head on the pyramid. Masks are made for the cells that are asked for, and for no other."""

    def __init__(self, num_classes: int, options: Options) -> None:
        super().__init__()
        self.options = options
        self.class_tower = Tower(
            options.channels, options.width, options.depth, groups=options.groups, deform=options.deform
        )
        self.classes = output(options.width, num_classes, kernel=3, bias=PRIOR_BIAS)
        self.embedding = output(options.width, options.embedding, kernel=3) if options.embedding else None

    def forward(self, pyramid: Sequence[Tensor]) -> list[Level]:
        """The levels, of P2 to P6 or of the single map."""
        raise NotImplementedError

    def logits(self, level: Level, number: int, image: int, cells: Tensor) -> Tensor:
        """Mask logits [N, h, w] of cells (row S + column) of level `number`, at the level's own size."""
        raise NotImplementedError

    def soft(self, level: Level, number: int, image: int, cells: Tensor, size: tuple[int, int]) -> Tensor:
        """Soft masks [N, *size] in 0..1."""
        return resize(self.logits(level, number, image, cells)[None].sigmoid(), size)[0]

    def class_logits(self, map_BCHW: Tensor, grid: int) -> Tensor:
        """Of the category branch: the map is aligned with the grid before the first layer (thesis, section 3.3.3)."""
        return self.classes_and_vectors(map_BCHW, grid)[0]

    def classes_and_vectors(self, map_BCHW: Tensor, grid: int) -> tuple[Tensor, Tensor | None]:
        """`class_logits`, and what the embedding branch, if there is one, makes of the same tower (section 6.2.3)."""
        tower = self.class_tower(align(map_BCHW, grid, self.options.align))
        return self.classes(tower), None if self.embedding is None else self.embedding(tower)


class SoloHead(Head):
    """SOLO: a channel of the mask branch for every cell."""

    def __init__(self, num_classes: int, options: Options) -> None:
        super().__init__(num_classes, options)
        self.mask_tower = _mask_tower(options, "xy")
        self.masks = nn.ModuleList(
            output(options.width, grid * grid, kernel=1, bias=PRIOR_BIAS) for grid in options.grids
        )

    def forward(self, pyramid: Sequence[Tensor]) -> list[Level]:
        """See `Head`."""
        return [
            Level(self.class_logits(one, grid), (double(self.mask_tower(one)),))
            for one, grid in zip(level_maps(pyramid), self.options.grids, strict=True)
        ]

    def logits(self, level: Level, number: int, image: int, cells: Tensor) -> Tensor:
        """See `Head`."""
        return _some_channels(self.masks[number], level.maps[0][image], cells)


class DecoupledHead(Head):
    """Decoupled SOLO: a channel for every column and every row; a mask is a product of two (thesis, Eq. 3.5)."""

    def __init__(self, num_classes: int, options: Options) -> None:
        super().__init__(num_classes, options)
        axes = ("xy",) if options.shared_tower else ("x", "y")
        self.mask_towers = nn.ModuleList(_mask_tower(options, one) for one in axes)
        self.columns, self.rows = (
            nn.ModuleList(output(options.width, grid, kernel=3, bias=PRIOR_BIAS) for grid in options.grids)
            for _ in range(2)
        )

    def forward(self, pyramid: Sequence[Tensor]) -> list[Level]:
        """See `Head`."""
        return [
            Level(self.class_logits(one, grid), tuple(double(tower(one)) for tower in self.mask_towers))
            for one, grid in zip(level_maps(pyramid), self.options.grids, strict=True)
        ]

    def logits(self, level: Level, number: int, image: int, cells: Tensor) -> Tensor:
        """See `Head`: the logit of sigmoid(x) sigmoid(y), without a difference of near numbers."""
        (x_Nhw, columns), (y_Nhw, rows) = self._factors(level, number, image, cells)
        x_Nhw, y_Nhw = x_Nhw.float()[columns], y_Nhw.float()[rows]
        both = F.logsigmoid(x_Nhw) + F.logsigmoid(y_Nhw)
        neither = torch.logaddexp(F.logsigmoid(-x_Nhw), F.logsigmoid(x_Nhw) + F.logsigmoid(-y_Nhw))
        return both - neither

    def soft(self, level: Level, number: int, image: int, cells: Tensor, size: tuple[int, int]) -> Tensor:
        """See `Head`; the factors are resized before they are multiplied, as they are fewer."""
        (x_Nhw, columns), (y_Nhw, rows) = (
            (resize(factor[None].sigmoid(), size)[0], places)
            for factor, places in self._factors(level, number, image, cells)
        )
        return x_Nhw[columns] * y_Nhw[rows]

    def _factors(self, level: Level, number: int, image: int, cells: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Logits of the columns and rows that occur among the cells, and which of them each cell has."""
        grid = self.options.grids[number]
        found = []
        axes = ((self.columns[number], level.maps[0], cells % grid), (self.rows[number], level.maps[-1], cells // grid))
        for conv, maps_BChw, places in axes:
            chosen, inverse = places.unique(return_inverse=True)  # type: ignore[no-untyped-call]
            found.append((_some_channels(conv, maps_BChw[image], chosen), inverse))
        return found


def level_maps(pyramid: Sequence[Tensor]) -> list[Tensor]:
    """P2 to P6 as the heads take them: P2 at P3's size, P6 at P5's. A single map stays."""
    if len(pyramid) == 1:
        return [*pyramid]
    p2, p3, p4, p5, p6 = pyramid
    return [resize(p2, _size(p3)), p3, p4, p5, resize(p6, _size(p5))]


def align(map_BCHW: Tensor, grid: int, how: str) -> Tensor:
    """The map on S x S cells: `interpolate` at their centres, `adaptive_max` of or `region` mean over each."""
    if how == "adaptive_max":
        return F.adaptive_max_pool2d(map_BCHW, grid)
    if how == "region":
        return F.avg_pool2d(resize(map_BCHW, (SAMPLES * grid, SAMPLES * grid)), SAMPLES)
    return resize(map_BCHW, (grid, grid))


def double(map_BCHW: Tensor) -> Tensor:
    """The map at twice its size."""
    return resize(map_BCHW, (2 * map_BCHW.shape[2], 2 * map_BCHW.shape[3]))


def _mask_tower(options: Options, axes: str) -> Tower:
    return Tower(
        options.channels,
        options.width,
        options.depth,
        axes=axes,
        coord_layers=options.coord_layers,
        groups=options.groups,
        deform=options.deform,
    )


def _some_channels(conv: nn.Module, map_CHW: Tensor, channels: Tensor) -> Tensor:
    """What a convolution gives in these channels: [N, H, W]."""
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    return F.conv2d(map_CHW[None], conv.weight[channels], conv.bias[channels], padding=conv.padding)[0]


def _size(map_BCHW: Tensor) -> tuple[int, int]:
    return map_BCHW.shape[2], map_BCHW.shape[3]
