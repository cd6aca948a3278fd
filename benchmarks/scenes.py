"""A small world for instance segmentation: textured shapes that hide each other, on textured ground.

Three classes (ellipse, box, triangle) of any colour and texture, turned and squeezed, two to six in a scene, later
ones in front. What tells objects apart is shape and the change of texture, not a colour of their own; shading and
noise go over everything. Scenes are a function of (seed, number) alone.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

CLASSES = ("ellipse", "box", "triangle")
SIDE = 128  # pixels
MIN_VISIBLE = 80  # pixels
MIN_SHARE = 0.3  # of an object that must be seen

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """image uint8 [SIDE, SIDE, 3] RGB; visible masks [SIDE, SIDE] and their classes."""

    image: Image
    masks: list[Mask]
    labels: list[int]


def make_scene(seed: int, number: int) -> Scene:
    """One scene."""
    rng = np.random.default_rng((seed, number))
    canvas = _texture(rng, rng.uniform(0.15, 0.85, 3), 0.1)
    drawn: list[tuple[int, Mask]] = []
    for _ in range(rng.integers(2, 7)):
        label = int(rng.integers(len(CLASSES)))
        shape = _shape(rng, label)
        ground = canvas[shape].mean(0)
        colour = _apart(rng, ground)
        canvas[shape] = _texture(rng, colour, 0.12)[shape]
        drawn.append((label, shape))
    masks: list[Mask] = []
    labels: list[int] = []
    hidden = np.zeros((SIDE, SIDE), bool)
    for label, shape in reversed(drawn):
        visible = shape & ~hidden
        hidden |= shape
        if visible.sum() >= max(MIN_VISIBLE, MIN_SHARE * shape.sum()):
            masks.append(visible)
            labels.append(label)
    shade = 0.75 + 0.5 * _noise(rng, 2)
    image = canvas * shade[..., None] + rng.normal(0, 0.02, canvas.shape)
    return Scene((image.clip(0, 1) * 255).astype(np.uint8), masks, labels)


def write_scenes(folder: Path, seed: int, count: int) -> None:
    """PNG files in `folder`/images and COCO annotations in `folder`/annotations.json."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(count):
        scene = make_scene(seed, number)
        name = f"{number:06d}.png"
        cv2.imwrite(str(folder / "images" / name), cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR))
        images.append({"id": number + 1, "file_name": name, "width": SIDE, "height": SIDE})
        for mask, label in zip(scene.masks, scene.labels, strict=True):
            rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number + 1,
                    "category_id": label + 1,
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                    "area": int(mask.sum()),
                    "bbox": coco_mask.toBbox(rle).tolist(),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": place + 1, "name": name} for place, name in enumerate(CLASSES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(content))


def _shape(rng: np.random.Generator, label: int) -> Mask:
    size = rng.uniform(14, 34) * np.array([1.0, rng.uniform(0.55, 1.0)])  # half sides, in pixels
    centre = rng.uniform(0.1 * SIDE, 0.9 * SIDE, 2)
    angle = rng.uniform(0, 2 * np.pi)
    corners = {
        0: [(np.cos(t), np.sin(t)) for t in np.linspace(0, 2 * np.pi, 48, endpoint=False)],
        1: [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
        2: [(-1.0, 0.9), (1.0, 0.9), (0.0, -1.0)],
    }[label]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = (np.array(corners) * size) @ turn.T + centre
    canvas = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillPoly(canvas, [np.round(points).astype(np.int32)], 1)
    return canvas.astype(bool)


def _texture(rng: np.random.Generator, colour: npt.NDArray[np.float64], depth: float) -> npt.NDArray[np.float64]:
    """Two close colours that a pattern mixes: [SIDE, SIDE, 3]."""
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    angle, period, phase = rng.uniform(0, np.pi), rng.uniform(5, 14), rng.uniform(0, 2 * np.pi)
    along = 2 * np.pi * (rows * np.sin(angle) + columns * np.cos(angle)) / period + phase
    across = 2 * np.pi * (columns * np.sin(angle) - rows * np.cos(angle)) / period
    pattern = {
        0: lambda: np.sign(np.sin(along)),
        1: lambda: np.sign(np.sin(along) * np.sin(across)),
        2: lambda: 2 * _noise(rng, 24) - 1,
        3: lambda: 2 * _noise(rng, 3) - 1,
    }[int(rng.integers(4))]()
    other = rng.normal(0, 1, 3)
    return colour + depth * pattern[..., None] * other / np.linalg.norm(other)


def _noise(rng: np.random.Generator, cells: int) -> npt.NDArray[np.float64]:
    """Smooth noise between 0 and 1 with so many cells a side."""
    coarse = rng.uniform(0, 1, (cells + 1, cells + 1))
    return np.asarray(cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)).clip(0, 1)


def _apart(rng: np.random.Generator, ground: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A colour that can be told from the ground."""
    while True:
        colour = rng.uniform(0.1, 0.9, 3)
        if np.abs(colour - ground).sum() > 0.35:
            return colour
