"""SOLOv2's head: every cell predicts the kernel that makes its mask (thesis, section 4.2.1).

Shape legend: B images, C channels, E channels of the mask feature, S cells along a side of a grid, N chosen cells,
h w cells of the mask feature.
"""

from collections.abc import Iterable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .head import Head, Level, align, double, level_maps
from .layers import ConvNorm, Tower, output, with_coordinates
from .options import Options

SEPARATE_DEPTH = 7  # layers of the mask branch of each level, as in SOLO


class UnifiedFeature(nn.Module):
    """P2 to P5 as one map at stride 4 (thesis, section 4.2.1): levels are doubled until they are there, and summed.

    With `coords`, P5 carries its coordinates. `outside` None leaves out the last 1x1 layer.
    """

    def __init__(
        self, inside: int, width: int, outside: int | None, *, coords: bool, groups: int = 32, deform: bool = False
    ) -> None:
        super().__init__()
        self.coords = coords

        def layer(before: int, after: int, kernel: int = 3) -> ConvNorm:
            return ConvNorm(before, after, kernel=kernel, groups=groups, deform=deform)

        self.levels = nn.ModuleList(
            Rise(
                (
                    layer(width if number else inside + 2 * (coords and doublings == 3), width)
                    for number in range(max(1, doublings))
                ),
                doubles=doublings > 0,
            )
            for doublings in range(4)
        )
        self.last = None if outside is None else layer(width, outside, 1)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """The feature [B, E, h, w] of P2, P3, P4, P5, ..."""
        *fine, p5 = pyramid[:4]
        maps = [*fine, with_coordinates(p5, "xy") if self.coords else p5]
        total, *rest = (level(one) for level, one in zip(self.levels, maps, strict=True))
        for one in rest:
            total = total + one
        feature: Tensor = total if self.last is None else self.last(total)
        return feature


class Rise(nn.ModuleList):
    """Layers that each double the map; a first level's single layer leaves it."""

    def __init__(self, layers: Iterable[ConvNorm], *, doubles: bool) -> None:
        super().__init__(layers)
        self.doubles = doubles

    def forward(self, map_BCHW: Tensor) -> Tensor:
        """The map after all layers."""
        for layer in self:
            map_BCHW = double(layer(map_BCHW)) if self.doubles else layer(map_BCHW)
        return map_BCHW


class SeparateFeatures(nn.Module):
    """A mask feature for each level, at the level's own size: SOLO's mask branch up to its last layer."""

    def __init__(self, options: Options, *, coords: bool) -> None:
        super().__init__()
        self.tower = Tower(
            options.channels,
            options.feature_width,
            SEPARATE_DEPTH,
            axes="xy" if coords else "",
            groups=options.feature_groups,
        )
        self.last = ConvNorm(options.feature_width, options.kernel_channels, kernel=1, groups=options.feature_groups)

    def forward(self, map_BCHW: Tensor) -> Tensor:
        """The feature of one level, at twice its size."""
        feature: Tensor = self.last(double(self.tower(map_BCHW)))
        return feature


class DynamicHead(Head):
    """SOLOv2: kernels and classes from grids, masks by convolving the mask feature with the kernels."""

    def __init__(self, num_classes: int, options: Options) -> None:
        super().__init__(num_classes, options)
        self.kernel_axes = "xy" if options.coords in ("kernel", "both") else ""
        self.kernel_tower = Tower(
            options.channels + len(self.kernel_axes),
            options.width,
            options.depth,
            groups=options.groups,
            deform=options.deform,
        )
        self.kernels = output(options.width, options.kernel_channels * options.kernel_size**2, kernel=3)
        coords = options.coords in ("feature", "both")
        self.feature: UnifiedFeature | SeparateFeatures
        if options.mask_feature == "unified":
            self.feature = UnifiedFeature(
                options.channels,
                options.feature_width,
                options.kernel_channels,
                coords=coords,
                groups=options.feature_groups,
                deform=options.deform == "all",
            )
        else:
            self.feature = SeparateFeatures(options, coords=coords)

    def forward(self, pyramid: Sequence[Tensor]) -> list[Level]:
        """See `Head`."""
        unified = self.feature(pyramid) if isinstance(self.feature, UnifiedFeature) else None
        levels = []
        for one, grid in zip(level_maps(pyramid), self.options.grids, strict=True):
            kernels = self.kernels(self.kernel_tower(self._kernel_input(one, grid)))
            feature = self.feature(one) if unified is None else unified
            classes, vectors = self.classes_and_vectors(one, grid)
            levels.append(Level(classes, (feature,), kernels, vectors))
        return levels

    def logits(self, level: Level, number: int, image: int, cells: Tensor) -> Tensor:  # noqa: ARG002
        """See `Head`."""
        assert level.kernels is not None
        size, map_Ehw = self.options.kernel_size, level.maps[0][image]
        chosen_ND = level.kernels[image].flatten(1)[:, cells].T
        if size == 1:  # a plain product, which is faster than a convolution without a batch
            return (chosen_ND @ map_Ehw.flatten(1)).view(len(cells), *level.size)
        kernels = chosen_ND.reshape(len(cells), self.options.kernel_channels, size, size)
        return F.conv2d(map_Ehw[None], kernels, padding=size // 2)[0]

    def _kernel_input(self, map_BCHW: Tensor, grid: int) -> Tensor:
        """The map on the grid, with coordinates of the grid's cells (paper) or of the map's, resized (code)."""
        if self.options.coord_order == "paper":
            return with_coordinates(align(map_BCHW, grid, self.options.align), self.kernel_axes)
        return align(with_coordinates(map_BCHW, self.kernel_axes), grid, self.options.align)
