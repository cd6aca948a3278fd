"""Outlines of masks as polygons, along the edges of pixels.

A polygon through corners of pixels encloses exactly the pixels of the mask, where one through their centres loses half
a pixel all around. x and y are in pixels from the upper left corner of the image: a mask of one pixel at the origin is
the square (0, 0), (1, 0), (1, 1), (0, 1).
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.uint8]  # [H, W] of 0 and 1
Ring = npt.NDArray[np.float64]  # [n, 2] (x, y), closed from the last to the first


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A connected part of a mask (pixels that share an edge), with the holes in it."""

    outer: Ring
    holes: list[Ring]


def outline(mask_HW: Mask, tolerance: float = 0.0) -> list[Part]:
    """The parts of a mask, the largest first.

    `tolerance` is how far, in pixels, a simplified outline may lie from the true one (Douglas and Peucker); 0 keeps
    every corner. A ring that would collapse is kept as it is.
    """
    _, component_HW = cv2.connectedComponents(mask_HW, connectivity=4)
    outer: dict[int, Ring] = {}
    holes: dict[int, list[Ring]] = {}
    for ring in _rings(mask_HW.astype(bool)):
        x, y = ring[np.lexsort((ring[:, 0], ring[:, 1]))[0]]
        kept = _simplified(ring, tolerance)
        if y < mask_HW.shape[0] and x < mask_HW.shape[1] and mask_HW[y, x]:
            outer[int(component_HW[y, x])] = kept
        else:  # the pixel above a hole's first corner belongs to the part around it
            holes.setdefault(int(component_HW[y - 1, x]), []).append(kept)
    parts = [Part(ring, holes.get(component, [])) for component, ring in outer.items()]
    return sorted(parts, key=lambda part: -_area(part.outer))


def without_holes(part: Part) -> Ring:
    """One ring for a part: every hole is joined to the rest by a cut without width, so that fills leave it out."""
    ring = part.outer
    for hole in part.holes:
        ring = _joined(ring, hole)
    return ring


def single_ring(parts: list[Part]) -> Ring:
    """One ring for a whole mask, for formats that allow no more: its parts are joined by lines without width."""
    rings = [without_holes(part) for part in parts]
    ring = rings[0]
    for other in rings[1:]:
        ring = _joined(ring, other)
    return ring


def _rings(mask_HW: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.int64]]:
    """The closed rings of all edges between pixels in and out of the mask.

    Corners in one column of corners, from the top, are joined two by two by the mask's vertical edges, those in one
    row by its horizontal ones. Where two pixels of the mask touch in a corner alone, there are two corners in one
    place, connected so that each pixel keeps its own.
    """
    padded = np.pad(mask_HW, 1)
    a, b, c, d = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    single, falling, rising = np.argwhere(a ^ b ^ c ^ d), np.argwhere(a & d & ~b & ~c), np.argwhere(b & c & ~a & ~d)
    y, x = np.concatenate([single, falling, falling, rising, rising]).T
    copy = np.repeat([0, 0, 1, 0, 1], [len(single), len(falling), len(falling), len(rising), len(rising)])
    is_rising = np.arange(len(y)) >= len(single) + 2 * len(falling)
    down = _partners(np.lexsort((copy, y, x)))
    across = _partners(np.lexsort((copy ^ is_rising, x, y)))
    corners_N2 = np.stack([x, y], axis=1)
    next_down, next_across = down.tolist(), across.tolist()
    left = np.ones(len(y), bool).tolist()
    rings = []
    for start in range(len(left)):
        if not left[start]:
            continue
        order, at = [], start
        while left[at]:
            other = next_down[at]
            order += [at, other]
            left[at] = left[other] = False
            at = next_across[other]
        rings.append(corners_N2[order])
    return rings


def _partners(order: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For each corner the one it is paired with, when corners in this order are paired two by two."""
    partner = np.empty_like(order)
    partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]
    return partner


def _simplified(ring: npt.NDArray[np.int64], tolerance: float) -> Ring:
    if tolerance > 0:
        fewer = cv2.approxPolyDP(ring.astype(np.int32)[:, None], tolerance, closed=True)[:, 0]
        if len(fewer) >= 3 and _area(fewer) > 0:
            return fewer.astype(np.float64)
    return ring.astype(np.float64)


def _area(ring: npt.NDArray[Any]) -> float:
    x, y = ring[:, 0].astype(np.float64), ring[:, 1].astype(np.float64)
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def _joined(ring: Ring, other: Ring) -> Ring:
    """Out of the ring at its corner nearest to the other's first, around the other, and back the same way."""
    at = int(np.argmin(((ring - other[0]) ** 2).sum(1)))
    return np.concatenate([ring[: at + 1], other, other[:1], ring[at:]])
