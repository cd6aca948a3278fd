"""Masks drawn over a photograph: outlines with a light fill, and a few labels; boxes and seeds if wanted.

Line widths and letters scale with the photograph, so that a thumbnail and a large scan look alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from pycocotools import mask as coco_mask

Image = npt.NDArray[np.uint8]
Color = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, the last ones outside

GOLDEN_RATIO = 0.618033988749895  # steps of this fraction of the colour circle never come close to each other soon
BORDER = 0.55  # how dark the line around an outline is, so that it stands out of any photograph


def palette_color(rank: int) -> Color:
    """RGB colour of the mask of that rank: hues spread by the golden ratio."""
    hue = (0.58 + rank * GOLDEN_RATIO) % 1.0
    value = (255, 225)[rank % 2]
    hsv = np.array([[[round(hue * 180) % 180, (190, 235)[rank // 2 % 2], value]]], np.uint8)
    red, green, blue = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return red, green, blue


@dataclass(frozen=True, slots=True)
class Style:
    """How an overlay looks: `alpha` is the opacity of fills, `labels` the most that are written, 0 for none."""

    alpha: float = 0.25
    boxes: bool = False
    labels: int = 8


PLAIN = Style()


def draw_overlay(
    image_HW3: Image,
    counts: Sequence[bytes],
    boxes_N4: npt.NDArray[np.float32],
    scores_N: npt.NDArray[np.float32],
    seeds_xy: npt.NDArray[np.float32] | None = None,
    *,
    names: Sequence[str] | None = None,
    style: Style = PLAIN,
) -> Image:
    """A copy of an RGB photograph with its masks drawn, best first in the arguments, the smaller on top in the picture.

    counts: COCO compressed RLEs at the size of the photograph; boxes: XYWH in pixels; seeds_xy [N, 2]: the
    seeds' places in pixels; names: what each mask is, written before its score. Labels never cover each other: one
    that finds no room is left out.
    """
    canvas = image_HW3.copy()
    height, width = canvas.shape[:2]
    pen = _pen(height, width)
    masks = [coco_mask.decode({"size": [height, width], "counts": c}) for c in counts]
    # Small ones last: what a person holds would be hidden by the person. Of equals the better ones.
    order = sorted(range(len(masks)), key=lambda i: (-int(masks[i].sum()), -i))
    for i in order:  # from the photograph, so that a pixel shows its topmost mask alone, without lines of those below
        inside = masks[i].astype(bool)
        canvas[inside] = (1 - style.alpha) * image_HW3[inside] + style.alpha * np.array(palette_color(i))
        _outline(canvas, masks[i], palette_color(i), pen)
    for i in order if style.boxes else ():
        x, y, w, h = (round(float(v)) for v in boxes_N4[i])
        cv2.rectangle(canvas, (x, y), (x + w - 1, y + h - 1), palette_color(i), pen.thin, cv2.LINE_AA)
    taken = [] if seeds_xy is None else [_mark(canvas, seeds_xy[i], palette_color(i), pen) for i in order]
    written = [_written(float(score)) for score in scores_N]
    texts = written if names is None else [f"{name} {score}" for name, score in zip(names, written, strict=True)]
    seen: list[npt.NDArray[np.uint8]] = masks.copy()
    hidden: npt.NDArray[np.uint8] = np.zeros((height, width), np.uint8)
    for i in reversed(order):
        seen[i] = masks[i] * (hidden == 0)
        hidden |= masks[i]
    return _with_labels(canvas, seen, boxes_N4, texts[: style.labels], taken, pen)


def _written(score: float) -> str:
    """Two decimals; of small scores, as some producers have, the first digit that says something."""
    return f"{score:.2f}" if abs(score) >= 0.1 or score == 0 else f"{score:.1g}"


@dataclass(frozen=True, slots=True)
class _Pen:
    """Widths and the letters' height in pixels."""

    thin: int
    thick: int
    radius: int
    letters: int


def _pen(height: int, width: int) -> _Pen:
    unit = (height * width) ** 0.5 / 550
    return _Pen(max(1, round(unit)), max(1, round(2 * unit)), max(2, round(4 * unit)), max(9, round(15 * unit)))


def _outline(canvas: Image, mask: npt.NDArray[np.uint8], color: Color, pen: _Pen) -> None:
    contours, _ = cv2.findContours(np.ascontiguousarray(mask), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    dark = (int(color[0] * (1 - BORDER)), int(color[1] * (1 - BORDER)), int(color[2] * (1 - BORDER)))
    cv2.drawContours(canvas, contours, -1, dark, pen.thick + 2 * pen.thin, cv2.LINE_AA)
    cv2.drawContours(canvas, contours, -1, color, pen.thick, cv2.LINE_AA)


def _mark(canvas: Image, seed_xy: npt.NDArray[np.float32], color: Color, pen: _Pen) -> Rectangle:
    x, y = round(float(seed_xy[0])), round(float(seed_xy[1]))
    cv2.circle(canvas, (x, y), pen.radius + pen.thin, (0, 0, 0), cv2.FILLED, cv2.LINE_AA)
    cv2.circle(canvas, (x, y), pen.radius, (255, 255, 255), cv2.FILLED, cv2.LINE_AA)
    cv2.circle(canvas, (x, y), max(1, pen.radius - pen.thin), color, cv2.FILLED, cv2.LINE_AA)
    reach = pen.radius + pen.thin
    return x - reach, y - reach, x + reach + 1, y + reach + 1


def _with_labels(
    canvas: Image,
    seen: Sequence[npt.NDArray[np.uint8]],
    boxes_N4: npt.NDArray[np.float32],
    texts: Sequence[str],
    taken: Sequence[Rectangle],
    pen: _Pen,
) -> Image:
    if not texts:
        return canvas
    height, width = canvas.shape[:2]
    font = _font(pen.letters)
    pad = max(2, pen.letters // 4)
    sizes = []
    for text in texts:
        left, top, right, bottom = font.getbbox(text, anchor="ls")
        sizes.append((round(right - left) + 2 * pad, round(bottom - top) + 2 * pad))
    wanted = [_candidates(seen[i], boxes_N4[i], size) for i, size in enumerate(sizes)]
    picture = Pillow.fromarray(canvas)
    pencil = ImageDraw.Draw(picture)
    for i, place in enumerate(place_labels(wanted, sizes, (height, width), taken)):
        if place is not None:
            color = palette_color(i)
            luminance = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
            ink = (0, 0, 0) if luminance > 110 else (255, 255, 255)
            x0, y0, x1, y1 = place
            pencil.rounded_rectangle((x0, y0, x1 - 1, y1 - 1), radius=pad, fill=color)
            pencil.text((x0 + pad, y1 - pad), texts[i], fill=ink, font=font, anchor="ls")
    return np.asarray(picture).copy()


def place_labels(
    wanted: Sequence[Sequence[tuple[int, int]]],
    sizes: Sequence[tuple[int, int]],
    image: tuple[int, int],
    taken: Sequence[Rectangle] = (),
) -> list[Rectangle | None]:
    """Where labels of these sizes (width, height) go: each at the first upper left corner it wants that is free.

    They lie inside an image of (height, width), and cover neither each other nor what is `taken`; None for one without
    room. The first label chooses first.
    """
    placed: list[Rectangle | None] = []
    for corners, (w, h) in zip(wanted, sizes, strict=True):
        found = None
        for x, y in corners:
            x0, y0 = min(max(0, x), image[1] - w), min(max(0, y), image[0] - h)
            here = (x0, y0, x0 + w, y0 + h)
            others = [*taken, *(one for one in placed if one is not None)]
            if min(x0, y0) >= 0 and not any(_overlap(here, other) for other in others):
                found = here
                break
        placed.append(found)
    return placed


def _candidates(
    seen: npt.NDArray[np.uint8], box: npt.NDArray[np.float32], size: tuple[int, int]
) -> list[tuple[int, int]]:
    """Corners for a label, the best first: in the widest part of what is seen of the mask, then around its box."""
    w, h = size
    x, y, box_w, box_h = (round(float(value)) for value in box)
    around = [(x, y - h), (x + box_w - w, y - h), (x, y + box_h), (x + box_w - w, y + box_h), (x, y)]
    if not seen.any():
        return around
    depth = cv2.distanceTransform(np.pad(seen, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    middle = (int(column) - w // 2, int(row) - h // 2)
    # in the middle of a mask with room for it; beside one that the label would cover
    return [middle, *around] if depth.max() > 0.75 * h else [*around, middle]


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
