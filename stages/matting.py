"""Errors of alpha mattes (Rhemann et al., A Perceptually Motivated Online Benchmark for Image Matting), and previews.

Alphas are in 0..1. Every error is lower for better mattes and 0 for equal ones.

Shape legend: H W pixels.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ..schemas.errors import UserError

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
SIGMA = 1.4  # of the derivative of a Gaussian, in pixels
STEPS = 10  # levels of alpha at which connection is looked at
TOLERANCE = 0.15  # a pixel that is cut off by less counts as connected


@dataclass(frozen=True, slots=True)
class MatteErrors:
    """Sum of absolute differences, gradient and connectivity errors in thousands; mean squared error."""

    sad: float
    mse: float
    gradient: float
    connectivity: float


def matte_errors(found_HW: Floats, truth_HW: Floats, where_HW: Flags | None = None) -> MatteErrors:
    """Errors over all pixels, or over `where` alone (the unknown part of a trimap). Raises UserError for odd sizes."""
    if found_HW.shape != truth_HW.shape:
        raise UserError(
            f"a matte of {found_HW.shape[1]} x {found_HW.shape[0]} pixels cannot be compared with one of "
            f"{truth_HW.shape[1]} x {truth_HW.shape[0]}: predict at the size of the stored image."
        )
    where = np.ones(truth_HW.shape, bool) if where_HW is None else where_HW
    difference = (found_HW - truth_HW)[where]
    gradient = (gradient_size(found_HW) - gradient_size(truth_HW))[where]
    found_phi, truth_phi = connection(found_HW, truth_HW)
    return MatteErrors(
        sad=float(np.abs(difference).sum()) / 1000,
        mse=float(np.square(difference).mean()) if difference.size else 0.0,
        gradient=float(np.square(gradient).sum()) / 1000,
        connectivity=float(np.abs(found_phi - truth_phi)[where].sum()) / 1000,
    )


def gradient_size(alpha_HW: Floats) -> Floats:
    """Length of the gradient, by first derivatives of a Gaussian of unit norm; borders are repeated."""
    half = int(np.ceil(3 * SIGMA))
    place = np.arange(-half, half + 1)
    smooth = np.exp(-(place**2) / (2 * SIGMA**2))
    slope = -place * smooth
    smooth, slope = smooth / np.linalg.norm(smooth), slope / np.linalg.norm(slope)
    along_x = cv2.sepFilter2D(alpha_HW, cv2.CV_64F, slope, smooth, borderType=cv2.BORDER_REPLICATE)
    along_y = cv2.sepFilter2D(alpha_HW, cv2.CV_64F, smooth, slope, borderType=cv2.BORDER_REPLICATE)
    return np.hypot(along_x, along_y)


def connection(found_HW: Floats, truth_HW: Floats) -> tuple[Floats, Floats]:
    """How connected each pixel is with the source, the largest region that is opaque in both (Rhemann et al.).

    A pixel's level is the highest step at which it belongs to the largest 4-connected region where both alphas reach
    that step; what its alpha has above that level is unconnected.
    """
    level = np.zeros(truth_HW.shape)
    both = np.minimum(found_HW, truth_HW)
    connected = np.ones(truth_HW.shape, bool)
    for step in range(1, STEPS + 1):
        connected &= _largest_region(both >= step / STEPS)
        level[connected] = step / STEPS
    found, truth = (_less_the_cut_off(alpha, level) for alpha in (found_HW, truth_HW))
    return found, truth


def _less_the_cut_off(alpha_HW: Floats, level_HW: Floats) -> Floats:
    above = alpha_HW - level_HW
    kept: Floats = 1 - np.where(above >= TOLERANCE, above, 0)
    return kept


def _largest_region(inside_HW: Flags) -> Flags:
    count, regions, statistics, _ = cv2.connectedComponentsWithStats(inside_HW.astype(np.uint8), connectivity=4)
    if count == 1:
        return inside_HW
    largest: Flags = np.equal(regions, 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax()))
    return largest


def read_alpha(path: Path, shape: tuple[int, int]) -> Floats:
    """An alpha of 8 or 16 bits as 0..1 [H, W]. Raises UserError for a file of another size than its photograph."""
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED) if path.is_file() else None
    if image is None:
        raise UserError(f"{path.name} cannot be read as an image: give a PNG of the alpha.")
    if image.ndim == 3:
        image = image[:, :, 3] if image.shape[2] == 4 else image[:, :, 0]
    if image.shape != shape:
        raise UserError(
            f"{path.name} is {image.shape[1]} x {image.shape[0]}, but its photograph is {shape[1]} x {shape[0]}: "
            "give mattes of the photographs as they are stored."
        )
    alpha: Floats = image.astype(np.float64) / (65535 if image.dtype == np.uint16 else 255)
    return alpha


def encode_alpha(alpha_HW: Floats) -> bytes:
    """An alpha as a PNG of 8 bits."""
    return cv2.imencode(".png", np.rint(255 * alpha_HW).astype(np.uint8))[1].tobytes()


def composite(image_HW3: Bytes, alpha_HW: Floats, background: tuple[int, int, int] = (0, 177, 64)) -> Bytes:
    """The object of a photograph over a colour (RGB)."""
    alpha = alpha_HW[:, :, None]
    return np.rint(image_HW3 * alpha + np.array(background) * (1 - alpha)).astype(np.uint8)
