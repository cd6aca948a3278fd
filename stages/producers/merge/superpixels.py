"""Superpixels of a photograph and what is known of each: the leaves of the hierarchy.

Shape legend: H W pixels, N superpixels, E pairs of neighbours, D channels, h w feature cells.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Labels = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Leaves:
    """The superpixels of one image.

    labels [H, W]: 0..N-1. sizes [N]: pixels. colors [N, 3]: sums of CIE Lab. pairs [E, 2]: neighbours, the lower first,
    in ascending order. length [E]: pixels of their common border. edge [E]: sum of the gradient over these.
    """

    labels: Labels
    sizes: Floats
    colors: Floats
    pairs: Ints
    length: Floats
    edge: Floats


def find_leaves(pixels_HW3: npt.NDArray[np.uint8], side: int) -> Leaves:
    """Superpixels of about `side` x `side` pixels."""
    lab_HW3 = lab_colors(pixels_HW3)
    gradient_HW = gradient_strength(lab_HW3)
    labels_HW = superpixels(pixels_HW3, gradient_HW, side)
    flat = labels_HW.ravel()
    sizes_N = np.bincount(flat)
    colors_N3 = np.stack([np.bincount(flat, lab_HW3[..., c].ravel()) for c in range(3)], axis=1)
    pairs_E2, length_E, edge_E = neighbours(labels_HW, gradient_HW)
    return Leaves(labels_HW, sizes_N.astype(np.float32), colors_N3.astype(np.float32), pairs_E2, length_E, edge_E)


def lab_colors(pixels_HW3: npt.NDArray[np.uint8]) -> Floats:
    """CIE Lab, L in 0..100, of the slightly smoothed photograph."""
    smooth = cv2.GaussianBlur(pixels_HW3, (0, 0), 1.0)
    lab: Floats = cv2.cvtColor(smooth.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)  # type: ignore[assignment]
    return lab


def gradient_strength(lab_HW3: Floats) -> Floats:
    """How much the colour changes at each pixel: 0..1, half at 10 units of Lab per pixel."""
    dx = cv2.Sobel(lab_HW3, cv2.CV_32F, 1, 0, scale=0.125)
    dy = cv2.Sobel(lab_HW3, cv2.CV_32F, 0, 1, scale=0.125)
    change: Floats = np.sqrt((dx * dx + dy * dy).sum(2))
    return change / (change + np.float32(10))


def superpixels(pixels_HW3: npt.NDArray[np.uint8], gradient_HW: Floats, side: int) -> Labels:
    """Watershed from the flattest place of each cell of a grid (Machairas et al., Waterpixels, section III)."""
    height, width = gradient_HW.shape
    rows, columns = max(1, round(height / side)), max(1, round(width / side))
    top, left = np.arange(rows + 1) * height // rows, np.arange(columns + 1) * width // columns
    markers_HW = np.zeros((height, width), np.int32)
    flat = cv2.GaussianBlur(gradient_HW, (0, 0), 1.0)
    number = 0
    for r in range(rows):
        for c in range(columns):
            y, x, bottom, right = top[r], left[c], top[r + 1], left[c + 1]
            margin_y, margin_x = (bottom - y) // 4, (right - x) // 4
            inner = flat[
                y + margin_y : max(bottom - margin_y, y + margin_y + 1),
                x + margin_x : max(right - margin_x, x + margin_x + 1),
            ]
            dy, dx = divmod(int(inner.argmin()), inner.shape[1])
            number += 1
            markers_HW[y + margin_y + dy, x + margin_x + dx] = number
    labels_HW: Labels = cv2.watershed(pixels_HW3, markers_HW)  # type: ignore[assignment]
    labels_HW[labels_HW < 0] = 0
    while (empty := labels_HW == 0).any():  # borders, and what the watershed leaves at the image's edge
        grown = cv2.dilate(labels_HW.astype(np.float32), np.ones((3, 3), np.uint8)).astype(np.int32)
        labels_HW[empty] = grown[empty]
    labels_HW -= 1
    _, inverse = np.unique(labels_HW, return_inverse=True)
    return inverse.reshape(labels_HW.shape).astype(np.int32)


def neighbours(labels_HW: Labels, gradient_HW: Floats) -> tuple[Ints, Floats, Floats]:
    """Pairs of superpixels with a common border [E, 2], its length [E] and the sum of the gradient over it [E]."""
    firsts, seconds, strengths = [], [], []
    for a, b, ga, gb in (
        (labels_HW[:, :-1], labels_HW[:, 1:], gradient_HW[:, :-1], gradient_HW[:, 1:]),
        (labels_HW[:-1], labels_HW[1:], gradient_HW[:-1], gradient_HW[1:]),
    ):
        differ = a != b
        firsts.append(np.minimum(a[differ], b[differ]))
        seconds.append(np.maximum(a[differ], b[differ]))
        strengths.append(np.maximum(ga[differ], gb[differ]))
    count = int(labels_HW.max()) + 1
    keys = np.concatenate(firsts).astype(np.int64) * count + np.concatenate(seconds)
    unique, inverse = np.unique(keys, return_inverse=True)
    length_E = np.bincount(inverse, minlength=len(unique)).astype(np.float32)
    edge_E = np.bincount(inverse, np.concatenate(strengths), len(unique)).astype(np.float32)
    return np.stack([unique // count, unique % count], axis=1), length_E, edge_E


def pooled_features(labels_HW: Labels, features_Dhw: Floats, count: int) -> Floats:
    """Sums [N, D] over each superpixel of unit features, interpolated bilinearly between the centres of cells."""
    depth, rows, columns = features_Dhw.shape
    height, width = labels_HW.shape
    unit_KD = features_Dhw.reshape(depth, -1).T
    unit_KD = unit_KD / np.maximum(np.linalg.norm(unit_KD, axis=1, keepdims=True), 1e-12)
    y0, y1, fy = _linear(height, rows)
    x0, x1, fx = _linear(width, columns)
    weights_NK = np.zeros(count * rows * columns)
    base = labels_HW.astype(np.int64) * (rows * columns)
    for y, wy in ((y0, 1 - fy), (y1, fy)):
        for x, wx in ((x0, 1 - fx), (x1, fx)):
            cell = base + (y[:, None] * columns + x[None])
            weights_NK += np.bincount(cell.ravel(), (wy[:, None] * wx[None]).ravel(), len(weights_NK))
    pooled: Floats = weights_NK.reshape(count, -1).astype(np.float32) @ unit_KD.astype(np.float32)
    return pooled


def _linear(pixels: int, cells: int) -> tuple[Ints, Ints, npt.NDArray[np.float64]]:
    """Lower cell, upper cell and share of the upper one for each pixel (half-pixel centres)."""
    at = np.clip((np.arange(pixels) + 0.5) * cells / pixels - 0.5, 0, cells - 1)
    low = np.minimum(at.astype(np.int64), max(cells - 2, 0))
    return low, np.minimum(low + 1, cells - 1), at - low
