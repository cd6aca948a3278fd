"""Sharper masks: a soft map follows the edges of its photograph.

Shape legend: K maps, h w cells, H W pixels.
"""

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
    guide_HW = cv2.cvtColor(pixels_HW3, cv2.COLOR_RGB2GRAY).astype(np.float32) / np.float32(255)
    refined = np.empty((len(maps_Khw), height, width), np.float32)
    for map_hw, out_HW in zip(maps_Khw, refined, strict=True):
        wide = cv2.resize(map_hw, (width, height), interpolation=cv2.INTER_LINEAR)
        out_HW[:] = guided_filter(guide_HW, wide.astype(np.float32), radius, eps)
    return np.clip(refined, 0, 1, out=refined)


def guided_filter(guide_HW: Floats, input_HW: Floats, radius: int, eps: float) -> Floats:
    """The filtered input, locally a line in the guide (He et al., Guided Image Filtering, Eq. 5, 6 and 8).

    Windows are squares of 2 radius + 1 pixels, cut at the border. Computed in float64: variances are differences.
    """
    count = _window_sums(np.ones(guide_HW.shape), radius)

    def mean(values: Doubles) -> Doubles:
        return _window_sums(values, radius) / count

    guide, values = guide_HW.astype(np.float64), input_HW.astype(np.float64)
    mean_guide, mean_values = mean(guide), mean(values)
    covariance = mean(guide * values) - mean_guide * mean_values
    variance = mean(guide * guide) - mean_guide * mean_guide
    slope = covariance / (variance + eps)
    offset = mean_values - slope * mean_guide
    result: Floats = (mean(slope) * guide + mean(offset)).astype(np.float32)
    return result


def _window_sums(values_HW: Doubles, radius: int) -> Doubles:
    side = 2 * radius + 1
    summed = cv2.boxFilter(values_HW, -1, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT)
    return summed.astype(np.float64, copy=False)
