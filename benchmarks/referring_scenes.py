"""A small world with words: coloured shapes of two sizes, and expressions that name them by what and where they are.

Texts name one object ("the small red circle", "the blue square left of the green triangle"), many ("all triangles",
"everything red"), the largest, or none. No text is ambiguous. Scenes are a function of (seed, number) alone.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

COLOURS = {"red": (210, 50, 50), "green": (50, 170, 70), "blue": (60, 80, 210), "yellow": (225, 205, 60)}
SHAPES = ("circle", "square", "triangle")
SIDE = 64  # pixels
SALIENT = "the most salient object"

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Thing:
    """One object: what is said of it, where its centre is, and its pixels."""

    colour: str
    shape: str
    size: str
    x: float
    y: float
    mask: Mask

    @property
    def name(self) -> str:
        """Colour and shape."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True, slots=True, eq=False)
class WordScene:
    """image uint8 [SIDE, SIDE, 3] RGB, its things, and texts with the things that each means."""

    image: npt.NDArray[np.uint8]
    things: list[Thing]
    texts: list[tuple[str, list[int]]]


def make_word_scene(seed: int, number: int, side: int = SIDE) -> WordScene:
    """One scene of two to four things that do not touch."""
    rng = np.random.default_rng((seed, number))
    ground = rng.integers(90, 150, 3)
    image = np.broadcast_to(ground, (side, side, 3)).astype(np.float64) + rng.normal(0, 6, (side, side, 3))
    things: list[Thing] = []
    taken = np.zeros((side, side), np.uint8)
    for _ in range(int(rng.integers(2, 5)) * 8):
        if len(things) == 4:
            break
        size = ("small", "large")[int(rng.integers(2))]
        radius = side * (rng.uniform(0.08, 0.11) if size == "small" else rng.uniform(0.15, 0.19))
        x, y = rng.uniform(radius + 1, side - radius - 1, 2)
        colour, shape = list(COLOURS)[int(rng.integers(4))], SHAPES[int(rng.integers(3))]
        drawn = _draw(shape, x, y, radius, side)
        if (cv2.dilate(drawn, np.ones((5, 5), np.uint8)) & taken).any():
            continue
        taken |= drawn
        mask = drawn.astype(bool)
        image[mask] = np.array(COLOURS[colour]) + rng.normal(0, 10, 3) + rng.normal(0, 6, (int(mask.sum()), 3))
        things.append(Thing(colour, shape, size, x, y, mask))
    return WordScene(image.clip(0, 255).astype(np.uint8), things, _texts(things))


def _draw(shape: str, x: float, y: float, radius: float, side: int) -> npt.NDArray[np.uint8]:
    canvas = np.zeros((side, side), np.uint8)
    angles = {"circle": np.linspace(0, 2 * np.pi, 40), "square": np.pi / 4 + np.arange(4) * np.pi / 2}.get(
        shape, -np.pi / 2 + np.arange(3) * 2 * np.pi / 3
    )
    points = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], 1)
    cv2.fillPoly(canvas, [np.round(points).astype(np.int32)], 1)
    return canvas


def _texts(things: list[Thing]) -> list[tuple[str, list[int]]]:
    """Every text of the grammar that is true of this scene."""
    found: list[tuple[str, list[int]]] = []
    names = [thing.name for thing in things]
    for i, one in enumerate(things):
        if names.count(one.name) == 1:
            found.append((f"the {one.name}", [i]))
            found.append((f"the {one.size} {one.name}", [i]))
        for j, other in enumerate(things):
            if i == j or names.count(other.name) > 1 or sum(t.shape == one.shape for t in things) != 2:
                continue
            twin = next(t for k, t in enumerate(things) if k != i and t.shape == one.shape)
            if twin is other:
                continue
            for word, mine, his, theirs in (
                ("left of", one.x, twin.x, other.x),
                ("right of", -one.x, -twin.x, -other.x),
                ("above", one.y, twin.y, other.y),
                ("below", -one.y, -twin.y, -other.y),
            ):
                if mine < theirs - 6 and his > theirs + 6:
                    found.append((f"the {one.shape} {word} the {other.name}", [i]))
    found += [(f"all {shape}s", [i for i, t in enumerate(things) if t.shape == shape]) for shape in SHAPES]
    found += [(f"everything {name}", [i for i, t in enumerate(things) if t.colour == name]) for name in COLOURS]
    for word, order in (("leftmost", [t.x for t in things]), ("rightmost", [-t.x for t in things])):
        first, second = np.argsort(order)[:2]
        if order[second] - order[first] > 6:
            found.append((f"the {word} object", [int(first)]))
    areas = [int(t.mask.sum()) for t in things]
    second_largest, largest = sorted(areas)[-2:]
    if largest > 1.3 * second_largest:
        found.append((SALIENT, [int(np.argmax(areas))]))
    return found


def write_word_scenes(folder: Path, seed: int, count: int, side: int = SIDE, texts: int = 6) -> Path:
    """PNG files in `folder`/images and a file of references in COCO's format, whose path is given.

    Of each scene so many texts are drawn; every one is a reference with its own things.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    refs: list[dict[str, Any]] = []
    for number in range(count):
        scene = make_word_scene(seed, number, side)
        name = f"{number:06d}.png"
        cv2.imwrite(str(folder / "images" / name), cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR))
        images.append({"id": number + 1, "file_name": name, "width": side, "height": side})
        first = len(annotations) + 1
        for thing in scene.things:
            rle = coco_mask.encode(np.asfortranarray(thing.mask.astype(np.uint8)))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number + 1,
                    "category_id": SHAPES.index(thing.shape) + 1,
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                    "area": int(thing.mask.sum()),
                    "bbox": coco_mask.toBbox(rle).tolist(),
                    "iscrowd": 0,
                }
            )
        rng = np.random.default_rng((seed, number, 1))
        chosen = rng.permutation(len(scene.texts))[:texts]
        for place in sorted(map(int, chosen)):
            text, meant = scene.texts[place]
            refs.append(
                {
                    "ref_id": len(refs) + 1,
                    "image_id": number + 1,
                    "ann_id": [first + i for i in meant],
                    "no_target": not meant,
                    "split": "train",
                    "sentences": [{"raw": text, "sent": text}],
                }
            )
    categories = [{"id": place + 1, "name": name} for place, name in enumerate(SHAPES)]
    path = folder / "refs.json"
    content = {"images": images, "annotations": annotations, "categories": categories, "refs": refs}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
