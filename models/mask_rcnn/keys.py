"""Which pixels of a region are foreground, background, and keys of the contrast (ContrastMask, section 3).

Shape legend: N regions, S cells of a region's side. Sets are bool [N, S, S].
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

NEEDED = 2  # pixels below which the released code asks the activation map instead of the mask
SURE = 0.05  # its threshold there


@dataclass(frozen=True, slots=True, eq=False)
class Lattice:
    """Pixels taken for foreground and for background; others are neither."""

    front: Tensor
    back: Tensor

    def sides(self) -> Tensor:
        """Regions that have both: bool [N]."""
        return self.front.flatten(1).any(1) & self.back.flatten(1).any(1)


@dataclass(frozen=True, slots=True, eq=False)
class Keys:
    """Easy and hard keys of foreground and background, and the regions [N] that take part."""

    easy_front: Tensor
    easy_back: Tensor
    hard_front: Tensor
    hard_back: Tensor
    kept: Tensor

    def sets(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All four, in order."""
        return self.easy_front, self.easy_back, self.hard_front, self.hard_back


def lattice(masks_NSS: Tensor, cams_NSS: Tensor, known_N: Tensor, delta: float) -> Lattice:
    """From the mask (0..1, inside from 0.5) where it is known, else from the activation map (0..1).

    An activation from 1 - delta is foreground, one up to delta is background.
    """
    inside = masks_NSS >= 0.5
    known = known_N[:, None, None]
    front = torch.where(known, inside, cams_NSS >= 1 - delta)
    back = torch.where(known, ~inside, cams_NSS <= delta)
    return Lattice(front, back)


def lattice_of_code(masks_NSS: Tensor, cams_NSS: Tensor, known_N: Tensor, delta: float) -> Lattice:
    """The released code's: strict thresholds, and the map's surest pixels where a mask has hardly a pixel."""
    inside = masks_NSS >= 0.5
    known = known_N[:, None, None]
    few_front = (inside.sum((1, 2)) < NEEDED)[:, None, None]
    few_back = ((~inside).sum((1, 2)) < NEEDED)[:, None, None]
    front = torch.where(few_front, cams_NSS > 1 - SURE, inside)
    back = torch.where(few_back, cams_NSS < SURE, ~inside)
    return Lattice(
        torch.where(known, front, cams_NSS > 1 - delta),
        torch.where(known, back, cams_NSS < delta),
    )


def boundary(inside_NSS: Tensor) -> Tensor:
    """Pixels where the central difference of the mask along rows or columns is not 0 (one-sided at the border)."""
    padded = F.pad(inside_NSS.float()[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    along_rows = padded[:, 1:-1, 2:] != padded[:, 1:-1, :-2]
    along_columns = padded[:, 2:, 1:-1] != padded[:, :-2, 1:-1]
    return along_rows | along_columns


def near(edges_NSS: Tensor) -> Tensor:
    """Pixels whose squared distance to the nearest edge pixel is at most 2: its 3 x 3 neighbourhood."""
    return F.max_pool2d(edges_NSS.float()[:, None], 3, stride=1, padding=1)[:, 0] > 0


def draw(sets_NSS: Tensor, share: float) -> Tensor:
    """Of each set ceil(share * size) pixels, uniformly and without replacement; torch's generator draws."""
    flat = sets_NSS.flatten(1)
    order = torch.rand(flat.shape, device=flat.device).masked_fill(~flat, 2.0)
    rank = order.argsort(1).argsort(1)
    wanted = (flat.sum(1, dtype=torch.float64) * share - 1e-9).ceil()  # 0.3 * 10 is a little more than 3 in binary
    return ((rank < wanted[:, None]) & flat).view_as(sets_NSS)


def sample_keys(cells: Lattice, masks_NSS: Tensor, known_N: Tensor, share: float, least: int) -> Keys:
    """Keys after Eq. 3: drawn from foreground and background, then hard up to a squared distance of 2 to the boundary.

    Where no mask is known, all that is drawn is both easy and hard. A region takes part if each of its four sets has
    `least` pixels before and one after the draw.
    """
    hard = near(boundary(masks_NSS >= 0.5))
    whole = _split(cells, hard, known_N)
    drawn = _split(Lattice(draw(cells.front, share), draw(cells.back, share)), hard, known_N)
    kept = _has(whole, least) & _has(drawn, 1)
    return Keys(*drawn, kept)


def sample_keys_of_code(cells: Lattice, masks_NSS: Tensor, known_N: Tensor, share: float, least: int) -> Keys:
    """Keys as the released code has them: each of the four sets is drawn from by itself.

    Hard pixels are near the boundary but not on it; of those on it, the foreground's are easy and the background's
    are none.
    """
    inside = masks_NSS >= 0.5
    edges = boundary(inside)
    reach = near(edges)
    band = reach & ~edges
    known = known_N[:, None, None]
    sets = (
        torch.where(known, inside & ~band, cells.front),
        torch.where(known, ~inside & ~reach, cells.back),
        torch.where(known, inside & band, cells.front),
        torch.where(known, ~inside & band, cells.back),
    )
    kept = _has(sets, least)
    easy_front, easy_back, hard_front, hard_back = (draw(one, share) for one in sets)
    return Keys(easy_front, easy_back, hard_front, hard_back, kept)


def _split(cells: Lattice, hard_NSS: Tensor, known_N: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    unknown = ~known_N[:, None, None]
    easy, hard = ~hard_NSS | unknown, hard_NSS | unknown
    return cells.front & easy, cells.back & easy, cells.front & hard, cells.back & hard


def _has(sets: tuple[Tensor, Tensor, Tensor, Tensor], least: int) -> Tensor:
    return torch.stack([one.flatten(1).sum(1) >= least for one in sets]).all(0)
