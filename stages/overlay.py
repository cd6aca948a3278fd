"""Masks, boxes, scores and seeds drawn over a photograph, for reports and for looking at a run.

Line widths and letters scale with the photograph, so that a thumbnail and a large scan look alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

Image = npt.NDArray[np.uint8]
Color = tuple[int, int, int]

OPACITY = 0.45
GOLDEN_RATIO = 0.618033988749895  # steps of this fraction of the colour circle never come close to each other soon
FONT = cv2.FONT_HERSHEY_SIMPLEX


def palette_color(rank: int) -> Color:
    """RGB colour of the mask of that rank: hues spread by the golden ratio."""
    hue = (0.58 + rank * GOLDEN_RATIO) % 1.0
    value = (255, 225)[rank % 2]
    hsv = np.array([[[round(hue * 180) % 180, (190, 235)[rank // 2 % 2], value]]], np.uint8)
    red, green, blue = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return red, green, blue


def draw_overlay(
    image_HW3: Image,
    counts: Sequence[bytes],
    boxes_N4: npt.NDArray[np.float32],
    scores_N: npt.NDArray[np.float32],
    seeds_xy: npt.NDArray[np.float32] | None = None,
) -> Image:
    """A copy of an RGB photograph with its masks drawn, best first in the arguments and on top in the picture.

    counts: COCO compressed RLEs at the size of the photograph; boxes: XYWH in pixels; seeds_xy [N, 2]: the
    seeds' places in pixels.
    """
    canvas = image_HW3.copy()
    height, width = canvas.shape[:2]
    pen = _pen(height, width)
    order = range(len(counts) - 1, -1, -1)
    masks = [coco_mask.decode({"size": [height, width], "counts": c}) for c in counts]
    for i in order:  # from the photograph, so that a pixel shows the colour of its best mask alone
        inside = masks[i].astype(bool)
        canvas[inside] = (1 - OPACITY) * image_HW3[inside] + OPACITY * np.array(palette_color(i))
    for i in order:
        contours, _ = cv2.findContours(np.ascontiguousarray(masks[i]), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, contours, -1, palette_color(i), pen.thick, cv2.LINE_AA)
    for i in order:
        x, y, w, h = (round(float(v)) for v in boxes_N4[i])
        cv2.rectangle(canvas, (x, y), (x + w - 1, y + h - 1), palette_color(i), pen.thin, cv2.LINE_AA)
    if seeds_xy is not None:
        for i in order:
            _mark(canvas, seeds_xy[i], palette_color(i), pen)
    for i in order:
        _label(canvas, f"{scores_N[i]:.2f}", boxes_N4[i], palette_color(i), pen)
    return canvas


@dataclass(frozen=True, slots=True)
class _Pen:
    """Widths in pixels and the letters' scale."""

    thin: int
    thick: int
    radius: int
    letters: float


def _pen(height: int, width: int) -> _Pen:
    unit = (height * width) ** 0.5 / 550
    return _Pen(max(1, round(unit)), max(1, round(2 * unit)), max(2, round(4 * unit)), max(0.3, 0.45 * unit))


def _mark(canvas: Image, seed_xy: npt.NDArray[np.float32], color: Color, pen: _Pen) -> None:
    place = (round(float(seed_xy[0])), round(float(seed_xy[1])))
    cv2.circle(canvas, place, pen.radius + pen.thin, (0, 0, 0), cv2.FILLED, cv2.LINE_AA)
    cv2.circle(canvas, place, pen.radius, (255, 255, 255), cv2.FILLED, cv2.LINE_AA)
    cv2.circle(canvas, place, max(1, pen.radius - pen.thin), color, cv2.FILLED, cv2.LINE_AA)


def _label(canvas: Image, text: str, box: npt.NDArray[np.float32], color: Color, pen: _Pen) -> None:
    """The text on the mask's colour, upon the box's upper left corner, moved to lie inside the photograph."""
    height, width = canvas.shape[:2]
    (w, h), _ = cv2.getTextSize(text, FONT, pen.letters, pen.thin)
    pad = max(2, h // 3)
    w, h = w + 2 * pad, h + 2 * pad
    x = max(0, min(round(float(box[0])), width - w))
    y = max(0, min(round(float(box[1])) - h, height - h))
    cv2.rectangle(canvas, (x, y), (x + w - 1, y + h - 1), color, cv2.FILLED)
    luminance = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    ink = (0, 0, 0) if luminance > 110 else (255, 255, 255)
    cv2.putText(canvas, text, (x + pad, y + h - pad), FONT, pen.letters, ink, pen.thin, cv2.LINE_AA)
