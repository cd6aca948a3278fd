"""Seeds and their similarity maps.

Saliency Prompt Eq. 3; FreeSOLO Eq. 6.1-6.2. Every cell of the feature map, and of coarser poolings of it, is
a seed; its similarity to all cells is a saliency map.

Shape legend: B images, D channels, H W feature cells, K = H*W cells flattened, N seeds.
"""

import math
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ....models.arithmetic import exact_bf16_products
from ....schemas.labels.saliency import SaliencyConfig


@dataclass(frozen=True, slots=True)
class SeedLayout:
    """Where the seeds of a `height` x `width` grid are.

    `shapes` holds (rows, columns) of each scale; the seeds of all scales are concatenated in that order, row
    by row. `scale_index` is the position of each of these shapes in the configured list of scales.
    """

    height: int
    width: int
    pooling: Literal["bilinear", "average"]
    shapes: tuple[tuple[int, int], ...]
    scales: tuple[float, ...]
    scale_index: tuple[int, ...]

    @property
    def num_seeds(self) -> int:
        """N, the sum over scales of rows times columns."""
        return sum(h * w for h, w in self.shapes)


def seed_layout(height: int, width: int, config: SaliencyConfig) -> SeedLayout:
    """Seeds of an H x W grid: floor(H s) x floor(W s) per pyramid scale s, or one average-pooled grid.

    A scale at which a side would have no cell is left out (tiny images).
    """
    if config.seeding == "grid":
        rows, columns = config.grid or (math.ceil(height / 2), math.ceil(width / 2))
        return SeedLayout(height, width, "average", ((min(rows, height), min(columns, width)),), (0.0,), (0,))
    sized = [
        (i, s, (int(height * s), int(width * s)))
        for i, s in enumerate(config.scales)
        if int(height * s) > 0 and int(width * s) > 0
    ]
    return SeedLayout(
        height,
        width,
        "bilinear",
        shapes=tuple(x[2] for x in sized),
        scales=tuple(x[1] for x in sized),
        scale_index=tuple(x[0] for x in sized),
    )


def sample_seeds(maps_BCHW: Tensor, layout: SeedLayout) -> Tensor:
    """Pool the last two dimensions at every seed: [B, C, H, W] -> [B, N, C].

    Bilinear without antialias, half-pixel centres, the given scale mapping the coordinates (so that scale 1/2
    is the 2x2 mean and scale 1/4 the mean of the inner 2x2 of each 4x4 block), or adaptive average pooling.
    """
    pooled = []
    for shape, scale in zip(layout.shapes, layout.scales, strict=True):
        if layout.pooling == "average":
            level = F.adaptive_avg_pool2d(maps_BCHW, shape)
        elif scale == 1.0:
            level = maps_BCHW
        else:
            level = F.interpolate(maps_BCHW, scale_factor=scale, mode="bilinear", align_corners=False)
        pooled.append(level.permute(0, 2, 3, 1).flatten(1, 2))
    return pooled[0] if len(pooled) == 1 else torch.cat(pooled, dim=1)


@lru_cache(maxsize=64)
def seed_positions(layout: SeedLayout) -> Tensor:
    """Scale index, row and column of every seed: int16 [N, 3]."""
    rows = [
        torch.cartesian_prod(torch.tensor([i]), torch.arange(h), torch.arange(w))
        for i, (h, w) in zip(layout.scale_index, layout.shapes, strict=True)
    ]
    return torch.cat(rows).to(torch.int16)


@lru_cache(maxsize=16)
def seed_weights(layout: SeedLayout, device: torch.device) -> Tensor:
    """The pooling of `sample_seeds` as a matrix [N, K]: row n holds the weight of every cell in seed n."""
    identity = torch.eye(layout.height * layout.width, device=device)
    cells_1KHW = identity.view(1, -1, layout.height, layout.width)
    return sample_seeds(cells_1KHW, layout)[0]


def flatten_cells(features_BDHW: Tensor) -> Tensor:
    """[B, D, H, W] -> fp32 [B, K, D]; a view or one conversion for channels_last features, no transposition."""
    return features_BDHW.permute(0, 2, 3, 1).flatten(1, 2).float()


def similarity_maps(
    cells_BKD: Tensor, layout: SeedLayout, similarity: Literal["cosine", "dot"], *, bf16_valued: bool = False
) -> Tensor:
    """Similarity of every seed to every cell: fp32 [B, K, D] -> [B, N, K].

    Cosine of seed and cell (FreeSOLO Eq. 6.1-6.2), or their dot product (Saliency Prompt Eq. 3 as printed).
    Pooling is linear, so the seeds' dot products are pooled rows of the Gram matrix of the cells: one matrix
    product of K x K serves all scales. `bf16_valued` states that the cells are exactly representable in
    bf16, as those of a bf16 backbone are. Zero vectors have similarity 0 to all.
    """
    with exact_bf16_products(cells_BKD.device) if bf16_valued else nullcontext():
        gram_BKK = torch.bmm(cells_BKD, cells_BKD.transpose(1, 2))
    grid_BKHW = gram_BKK.view(-1, layout.height, layout.width, gram_BKK.shape[2]).permute(0, 3, 1, 2)
    dots_BNK = sample_seeds(grid_BKHW, layout)
    if similarity == "dot":
        return dots_BNK
    inverse_cell_norm_BK = _inverse_sqrt(gram_BKK.diagonal(dim1=1, dim2=2))
    inverse_seed_norm_BN = _inverse_sqrt(_squared_seed_norms(dots_BNK, layout))
    return dots_BNK.mul_(inverse_cell_norm_BK.unsqueeze(1)).mul_(inverse_seed_norm_BN.unsqueeze(2))


def _squared_seed_norms(dots_BNK: Tensor, layout: SeedLayout) -> Tensor:
    """|seed|^2 [B, N]: the dots of a seed with all cells, pooled once more with the seed's own weights."""
    return (dots_BNK * seed_weights(layout, dots_BNK.device)).sum(2)


def _inverse_sqrt(squares: Tensor) -> Tensor:
    """1/sqrt, and 0 for a zero vector."""
    return torch.where(squares > 0, squares.clamp_min(1e-24).rsqrt(), 0.0)
