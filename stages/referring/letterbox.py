"""Fitting a photograph into a square, and the way back.

The photograph is scaled by one factor, bicubically and without antialias, and centred; the border has the colour that
normalisation takes to zero. Centres of pixels are mapped (UniLSeg's released code maps corners: up to half a pixel).

Shape legend: h w pixels of the photograph, S of the square.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from ...models.unilseg.model import MEAN

Pixels = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float64]


def fit_matrix(height: int, width: int, side: int) -> Matrix:
    """[2, 3]: from (x, y, 1) of the photograph to (x, y) of the square, both in centres of pixels."""
    scale = min(side / height, side / width)
    across, down = (side - width * scale) / 2, (side - height * scale) / 2
    shift = (scale - 1) / 2
    return np.array([[scale, 0, across + shift], [0, scale, down + shift]])


def letterbox(pixels_hw3: Pixels, side: int) -> Pixels:
    """uint8 RGB [S, S, 3]."""
    matrix = fit_matrix(pixels_hw3.shape[0], pixels_hw3.shape[1], side)
    border: Sequence[float] = [round(value) for value in MEAN]
    return cv2.warpAffine(pixels_hw3, matrix, (side, side), flags=cv2.INTER_CUBIC, borderValue=border)  # type: ignore[return-value]


def letterbox_mask(mask_hw: Pixels, side: int) -> Pixels:
    """uint8 [S, S] of 0 and 1: where, between pixels, at least half belongs to the mask."""
    matrix = fit_matrix(mask_hw.shape[0], mask_hw.shape[1], side)
    shares = cv2.warpAffine(mask_hw * np.uint8(255), matrix, (side, side), flags=cv2.INTER_LINEAR, borderValue=0)
    return (shares >= 128).astype(np.uint8)


def unletterbox(map_SS: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    """A map of the square, back at the photograph's size: [h, w], bicubic."""
    matrix = fit_matrix(height, width, len(map_SS))
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(map_SS, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[return-value]
