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
_BITS = 20  # of gradients from 0 to 1


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

    @property
    def frame(self) -> Floats:
        """Sum over the four borders of the image of the share that a leaf covers [N]; all leaves together cover 4."""
        labels, count = self.labels, len(self.sizes)
        borders = (labels[0], labels[-1], labels[:, 0], labels[:, -1])
        shares = sum(np.bincount(border, minlength=count) / len(border) for border in borders)
        return np.asarray(shares, np.float32)

    def borders(self) -> tuple[Floats, Floats]:
        """Length of each leaf's border with others and the gradient over it [N]."""
        ends, count = self.pairs.T.ravel(), len(self.sizes)
        length = np.bincount(ends, np.tile(self.length, 2), count).astype(np.float32)
        return length, np.bincount(ends, np.tile(self.edge, 2), count).astype(np.float32)


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
    change: Floats = np.sqrt(np.einsum("hwc,hwc->hw", dx, dx) + np.einsum("hwc,hwc->hw", dy, dy))
    return change / (change + np.float32(10))


def superpixels(pixels_HW3: npt.NDArray[np.uint8], gradient_HW: Floats, side: int) -> Labels:
    """Watershed from the flattest place of each cell of a grid (Machairas et al., Waterpixels, section III)."""
    height, width = gradient_HW.shape
    rows, columns = max(1, round(height / side)), max(1, round(width / side))
    flat_HW = cv2.GaussianBlur(gradient_HW, (0, 0), 1.0)
    y, x = _inner(height, rows), _inner(width, columns)
    windows = flat_HW[y[:, None, :, None], x[None, :, None, :]].reshape(rows * columns, -1)
    dy, dx = np.divmod(windows.argmin(1), x.shape[1])
    row, column = np.divmod(np.arange(rows * columns), columns)
    markers_HW = np.zeros((height, width), np.int32)
    markers_HW[y[row, dy], x[column, dx]] = np.arange(1, rows * columns + 1)
    labels_HW: Labels = cv2.watershed(pixels_HW3, markers_HW)  # type: ignore[assignment]
    labels_HW = np.maximum(labels_HW, 0)
    while (empty := labels_HW == 0).any():  # borders, and what the watershed leaves at the image's edge
        grown = cv2.dilate(labels_HW.astype(np.float32), np.ones((3, 3), np.uint8))
        np.copyto(labels_HW, grown, where=empty, casting="unsafe")
    there = np.bincount(labels_HW.ravel(), minlength=rows * columns + 1) > 0
    numbers = np.cumsum(there, dtype=np.int32) - 1
    return numbers[labels_HW]


def _inner(pixels: int, cells: int) -> Ints:
    """Pixels of the inner half of each cell along one side; where it has fewer, its last one again."""
    bounds = np.arange(cells + 1) * pixels // cells
    margin = np.diff(bounds) // 4
    first, end = bounds[:-1] + margin, np.maximum(bounds[1:] - margin, bounds[:-1] + margin + 1)
    inner: Ints = np.minimum(first[:, None] + np.arange((end - first).max()), end[:, None] - 1)
    return inner


def neighbours(labels_HW: Labels, gradient_HW: Floats) -> tuple[Ints, Floats, Floats]:
    """Pairs of superpixels with a common border [E, 2], its length [E] and the sum of the gradient over it [E]."""
    count, width = int(labels_HW.max()) + 1, labels_HW.shape[1]
    flat, gradient = labels_HW.ravel(), gradient_HW.ravel()
    packed = []
    for step in (1, width):
        differ = flat[step:] != flat[:-step]
        if step == 1:
            differ[width - 1 :: width] = False  # from the end of a row to the next
        here = np.flatnonzero(differ)
        one, other = flat[here].astype(np.int64), flat[here + step].astype(np.int64)
        strength = np.maximum(gradient[here], gradient[here + step]) * np.float64(2**_BITS - 1)
        keys = np.minimum(one, other) * count + np.maximum(one, other)
        packed.append(keys << _BITS | np.rint(strength).astype(np.int64))
    together = np.sort(np.concatenate(packed))  # sorting pairs with their strengths is faster than finding places
    keys, strengths = together >> _BITS, together & (2**_BITS - 1)
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    if not len(first):
        return np.zeros((0, 2), np.int64), np.zeros(0, np.float32), np.zeros(0, np.float32)
    length_E = np.diff(first, append=len(keys)).astype(np.float32)
    edge_E = (np.add.reduceat(strengths, first) / (2**_BITS - 1)).astype(np.float32)
    return np.stack(np.divmod(keys[first], count), axis=1), length_E, edge_E


def pooled_features(leaves: Leaves, features_hwD: Floats) -> Floats:
    """Features interpolated bilinearly within each superpixel, times its pixels [N, D].

    The mean over a superpixel is taken as that of four places, one standard deviation of its pixels away from its
    centre in x and y. That is exact where features change linearly.
    """
    rows, columns, depth = features_hwD.shape
    height, width = leaves.labels.shape
    flat, count = leaves.labels.ravel(), len(leaves.sizes)
    corner_N4, weight_N4 = [], []
    for pixels, cells, at in (
        (height, rows, np.repeat(np.arange(height, dtype=np.float64), width)),
        (width, columns, np.tile(np.arange(width, dtype=np.float64), height)),
    ):
        mean_N = np.bincount(flat, at, count) / leaves.sizes
        spread_N = np.sqrt(np.maximum(np.bincount(flat, at * at, count) / leaves.sizes - mean_N * mean_N, 0))
        place_N2 = np.stack([mean_N - spread_N, mean_N + spread_N], axis=1)
        place_N2 = np.clip((place_N2 + 0.5) * cells / pixels - 0.5, 0, cells - 1)  # half-pixel centres
        low_N2 = np.minimum(place_N2.astype(np.int64), max(cells - 2, 0))
        corner_N4.append(np.concatenate([low_N2, np.minimum(low_N2 + 1, cells - 1)], axis=1))
        weight_N4.append(np.concatenate([1 - place_N2 + low_N2, place_N2 - low_N2], axis=1) / 2)
    cell = corner_N4[0][:, :, None] * columns + corner_N4[1][:, None]
    weight = (weight_N4[0][:, :, None] * weight_N4[1][:, None] * leaves.sizes[:, None, None]).astype(np.float32)
    cells_KD = features_hwD.reshape(-1, depth)
    pooled: Floats = np.einsum("nk,nkd->nd", weight.reshape(count, 16), cells_KD[cell.reshape(count, 16)])
    return pooled
