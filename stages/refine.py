"""Sharper masks: a soft map follows the edges of its photograph.

Shape legend: K maps, h w cells, H W pixels.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from .encode import Floats

Doubles = npt.NDArray[np.float64]


def refine_maps(maps_Khw: Floats, pixels_HW3: npt.NDArray[np.uint8], radius: int, eps: float) -> Floats:
    """Soft maps enlarged to the photograph and filtered under its guidance: [K, H, W] in 0..1.

    `radius` is in pixels of the photograph; 0 gives the maps as they are. `eps` is the variance of brightness (in
    0..1) below which a window counts as flat.
    """
    if radius == 0 or not len(maps_Khw):
        return maps_Khw
    height, width = pixels_HW3.shape[:2]
    guide = Guide.of(cv2.cvtColor(pixels_HW3, cv2.COLOR_RGB2GRAY).astype(np.float64) / 255, radius)
    refined = np.zeros((len(maps_Khw), height, width), np.float32)
    for map_hw, out_HW in zip(maps_Khw, refined, strict=True):
        wide = np.asarray(cv2.resize(map_hw, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
        near = _surroundings(wide, 3 * radius + 1)  # farther away, all is 0
        if near is not None:
            out_HW[near] = guide.at(near).filtered(wide[near], eps)
    return np.clip(refined, 0, 1, out=refined)


def guided_filter(guide_HW: Floats, input_HW: Floats, radius: int, eps: float) -> Floats:
    """The filtered input, locally a line in the guide (He et al., Guided Image Filtering, Eq. 5, 6 and 8).

    Windows are squares of 2 radius + 1 pixels, cut at the border. Computed in float64: variances are differences.
    """
    return Guide.of(guide_HW.astype(np.float64), radius).filtered(input_HW, eps)


@dataclass(frozen=True, slots=True, eq=False)
class Guide:
    """A photograph's brightness [H, W], its mean and variance in each window, and the windows' pixels."""

    radius: int
    values: Doubles
    mean: Doubles
    variance: Doubles
    count: Doubles

    @classmethod
    def of(cls, values_HW: Doubles, radius: int) -> "Guide":
        """With the moments of all windows."""
        count = _window_sums(np.ones(values_HW.shape), radius)
        mean = _window_sums(values_HW, radius) / count
        variance = _window_sums(values_HW * values_HW, radius) / count - mean * mean
        return cls(radius, values_HW, mean, variance, count)

    def at(self, part: tuple[slice, slice]) -> "Guide":
        """Of a part of the photograph."""
        return Guide(self.radius, self.values[part], self.mean[part], self.variance[part], self.count[part])

    def filtered(self, input_HW: Floats, eps: float) -> Floats:
        """See `guided_filter`."""
        values = input_HW.astype(np.float64)
        mean = _window_sums(values, self.radius) / self.count
        covariance = _window_sums(self.values * values, self.radius) / self.count - self.mean * mean
        slope = covariance / (self.variance + eps)
        offset = mean - slope * self.mean
        result: Floats = (
            (_window_sums(slope, self.radius) * self.values + _window_sums(offset, self.radius)) / self.count
        ).astype(np.float32)
        return result


def _surroundings(map_HW: Floats, margin: int) -> tuple[slice, slice] | None:
    """Where a map is not 0, and a margin around it; None where it is 0 everywhere."""
    rows, columns = np.flatnonzero(map_HW.any(1)), np.flatnonzero(map_HW.any(0))
    if not len(rows):
        return None
    y, x = (slice(max(0, found[0] - margin), found[-1] + margin + 1) for found in (rows, columns))
    return y, x


def _window_sums(values_HW: Doubles, radius: int) -> Doubles:
    side = 2 * radius + 1
    summed = cv2.boxFilter(values_HW, -1, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT)
    return summed.astype(np.float64, copy=False)
