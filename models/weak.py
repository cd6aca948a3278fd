"""Losses of masks that are known coarsely: by their outer lines and by colour.

The projections are FreeSOLO's (thesis, Wang, Deep Object Segmentation and Beyond, Eq. 6.4-6.6); the pairwise loss is
BoxInst's (Tian et al., CVPR 2021, section 3.2), in log space.

Shape legend: B images, P predicted masks, h w cells of a mask, D directions to half of a cell's neighbours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .losses import dice_distance

STRIDE = 4  # of the cells whose colours are compared, in pixels
DILATION = 2  # between a cell and its neighbours
DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))  # (rows, columns); the other four neighbours see the same pairs
DICE_EPS = 5e-6  # of each of the two sums in a projection's Dice distance
SIMILAR = 0.3  # from here on two colours are one
WHITE = (0.95047, 1.0, 1.08883)  # X, Y, Z of D65
XYZ_OF_RGB = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))


@dataclass(frozen=True, slots=True, eq=False)
class Affinity:
    """Which neighbours of which cells look alike, in both senses of each direction.

    forward, backward bool [B, D, h, w]: the pair of cell x and x + step, held at x. `forward` counts for x as its
    centre, `backward` for x + step; they differ where one of the two is not valid.
    """

    forward: Tensor
    backward: Tensor


def projection_loss(masks_Phw: Tensor, coarse_Phw: Tensor, how: Literal["max", "mean"]) -> Tensor:
    """Dice distances of the projections on both axes, summed: [P] (Eq. 6.4 with `max`, 6.5 with `mean`).

    masks: probabilities; coarse: 0 or 1.
    """
    if how == "max":
        sides = [(masks_Phw.amax(axis), coarse_Phw.amax(axis)) for axis in (1, 2)]
    else:
        sides = [(masks_Phw.mean(axis), coarse_Phw.mean(axis)) for axis in (1, 2)]
    (columns, coarse_columns), (rows, coarse_rows) = sides
    return dice_distance(columns, coarse_columns, DICE_EPS) + dice_distance(rows, coarse_rows, DICE_EPS)


def lab_of(rgb_B3hw: Tensor) -> Tensor:
    """CIE Lab (D65, L in 0..100) of sRGB in 0..255, fp32 [B, 3, h, w]."""
    share = rgb_B3hw.float() / 255
    linear = torch.where(share > 0.04045, ((share + 0.055) / 1.055) ** 2.4, share / 12.92)
    white = share.new_tensor(WHITE).view(1, 3, 1, 1)
    xyz = torch.einsum("xc,bchw->bxhw", share.new_tensor(XYZ_OF_RGB), linear) / white
    bent = torch.where(xyz > 0.008856, xyz.clamp_min(1e-9) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = bent.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def find_affinity(rgb_B3HW: Tensor, valid: Sequence[tuple[int, int]], similar: float = SIMILAR) -> Affinity:
    """Of images in 0..255, padded to a multiple of `STRIDE`; `valid` is (height, width) of what may be compared.

    Colours are means over cells, in whole numbers, as the authors' code has them; similarity is exp(-d / 2) of their
    distance in Lab. A neighbour that is not valid is not alike.
    """
    lab = lab_of(F.avg_pool2d(rgb_B3HW.float(), STRIDE).floor())
    height, width = lab.shape[2:]
    offset = STRIDE // 2  # where in a cell it is looked up whether it is valid
    y, x = (torch.arange(size, device=lab.device) * STRIDE + offset for size in (height, width))
    known = torch.stack([(y < rows)[:, None] & (x < columns) for rows, columns in valid])
    forward, backward = [], []
    for step in DIRECTIONS:
        here, there = _pairs(lab, step)
        alike = (-0.5 * (here - there).square().sum(1).sqrt()).exp() >= similar
        here_known, there_known = _pairs(known, step)
        forward.append(_at_here(alike & there_known, step, (height, width)))
        backward.append(_at_here(alike & here_known, step, (height, width)))
    return Affinity(torch.stack(forward, 1), torch.stack(backward, 1))


def pairwise_sums(
    logits_Phw: Tensor, coarse_Phw: Tensor, affinity: Affinity, image: int | Tensor
) -> tuple[Tensor, Tensor]:
    """Sums over each mask's pairs, [P] both: of -log P(both cells in the mask, or neither), and of pairs.

    A pair counts where its colours are alike and its centre lies in the tight box of the coarse mask; once for each
    of its cells that is a centre. log P = logaddexp(log s(x) + log s(y), log s(-x) + log s(-y)), with s the sigmoid.
    """
    box_Phw = tight_box(coarse_Phw)
    inside, outside = F.logsigmoid(logits_Phw), F.logsigmoid(-logits_Phw)
    losses, pairs = [], []
    for place, step in enumerate(DIRECTIONS):
        forward, backward = (_cut_here(one[image, place], step) for one in (affinity.forward, affinity.backward))
        here_box, there_box = _pairs(box_Phw, step)
        weights = (here_box & forward).to(logits_Phw.dtype) + (there_box & backward).to(logits_Phw.dtype)
        (in_here, in_there), (out_here, out_there) = _pairs(inside, step), _pairs(outside, step)
        agreed = torch.logaddexp(in_here + in_there, out_here + out_there)
        losses.append(-(weights * agreed).sum((1, 2)))
        pairs.append(weights.sum((1, 2)))
    return torch.stack(losses).sum(0), torch.stack(pairs).sum(0)


def cosine_loss(vectors_P: Tensor, wanted_P: Tensor) -> Tensor:
    """1 - cos of each pair of vectors [P, D]: [P] (Eq. 6.7)."""
    return 1 - F.cosine_similarity(vectors_P, wanted_P, dim=1)


def shorten(vectors_MC: Tensor, channels: int) -> Tensor:
    """Vectors of fewer channels, by linear interpolation along them: of 2048 to 128, the mean of 16 i + 7 and + 8."""
    if not len(vectors_MC):
        return vectors_MC.new_zeros((0, channels))
    return F.interpolate(vectors_MC[:, None], size=channels, mode="linear", align_corners=False)[:, 0]


def tight_box(masks_Phw: Tensor) -> Tensor:
    """Bool [P, h, w]: from the first to the last row and column that a mask has, also of one in pieces."""
    columns, rows = (_between(masks_Phw.amax(axis) > 0) for axis in (1, 2))
    return rows[:, :, None] & columns[:, None, :]


def _between(marked_PL: Tensor) -> Tensor:
    """From the first to the last that is marked."""
    counts = marked_PL.int().cumsum(1)
    return (counts > 0) & (marked_PL | (counts < counts[:, -1:]))


def _pairs(maps: Tensor, step: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The cells x and x + DILATION * step of maps [..., h, w], where both are there."""
    rows, columns = (DILATION * one for one in step)
    height, width = maps.shape[-2:]
    left = max(0, -columns)
    here = maps[..., : height - rows, left : width - max(0, columns)]
    there = maps[..., rows:, left + columns : width - max(0, columns) + columns]
    return here, there


def _cut_here(maps: Tensor, step: tuple[int, int]) -> Tensor:
    return _pairs(maps, step)[0]


def _at_here(pairs: Tensor, step: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """What `_pairs` cut, at the cells x of whole maps; false elsewhere."""
    whole = pairs.new_zeros((*pairs.shape[:-2], *size))
    _cut_here(whole, step).copy_(pairs)
    return whole
