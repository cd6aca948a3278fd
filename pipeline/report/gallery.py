"""Sampled images as files and JSON for the page: a small photograph, masks as outlines, soft maps as pictures."""

import base64
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from ...schemas.labels.base import DecodeConfig
from ...stages.coverage import Coverage
from ...stages.decode import decode_image
from ...stages.overlay import palette_color
from ...stages.read import BadImage, read_image_bytes
from ..show import Drawing, seed_points
from .sample import Sampled

QUALITY = 80  # of the JPEGs
BUDGET = 36_000_000  # bytes of all photographs together


def thumbnail_side(count: int) -> int:
    """Long side in pixels at which so many photographs stay within the BUDGET; between 160 and 640."""
    return int(np.clip(640 * (BUDGET / (count * 60_000 or 1)) ** 0.5, 160, 640))


def write_photographs(samples: list[Sampled], source: str, decode: DecodeConfig, folder: Path, side: int) -> list[str]:
    """Write a JPEG for every image that can be read; give for each the trouble, empty if there was none.

    Nothing is fetched from where `source` does not reach, whatever the plan says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    covered = Coverage(source).covers([sampled.ref for sampled in samples])

    def write(item: tuple[int, Sampled]) -> str:
        index, sampled = item
        if not covered[index]:
            return "the photograph was not read: its address is none that the data set's source covers"
        return _write_photograph(sampled, decode, folder / f"{index:05d}.jpg", side)

    with ThreadPoolExecutor() as pool:
        return list(pool.map(write, enumerate(samples)))


def _write_photograph(sampled: Sampled, decode: DecodeConfig, path: Path, side: int) -> str:
    found = jpeg_of(sampled, decode, side)
    if isinstance(found, str):
        return found
    path.write_bytes(found)
    return ""


def jpeg_of(sampled: Sampled, decode: DecodeConfig, side: int) -> bytes | str:
    """A JPEG of a photograph at most `side` pixels long; a sentence if it cannot be had."""
    row = sampled.row
    if row["status"] == "quarantined":
        return f"{row['reason']}: {row['error'] or ''}"
    scale = min(1.0, side / max(row["height"], row["width"]))
    sides = sorted(max(1, round(scale * length)) for length in (row["height"], row["width"]))
    update = {"short_side": sides[0], "long_side": sides[1], "keep_ratio": True, "align": 1, "min_side": 1}
    decode = decode.model_copy(update=update)
    try:
        image = decode_image(read_image_bytes(sampled.ref, decode.max_bytes), sampled.ref, decode)
    except BadImage as error:
        return f"the photograph cannot be read any more: {error}"
    if image.sha256 != row["sha256"]:
        return "the photograph was changed since"
    pixels = cv2.cvtColor(image.pixels, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done
    return data.tobytes()


def outline(counts: bytes, height: int, width: int) -> str:
    """A mask as an SVG path in pixels of the stored image, to be filled by the even-odd rule."""
    mask = coco_mask.decode({"size": [height, width], "counts": counts})
    contours, _ = cv2.findContours(np.ascontiguousarray(mask), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    tolerance = max(height, width) / 900
    parts = []
    for contour in contours:
        points_n2 = cv2.approxPolyDP(contour, tolerance, True)[:, 0]
        if len(points_n2) > 2:
            parts.append("M" + "L".join(f"{x} {y}" for x, y in points_n2.tolist()) + "Z")
    return "".join(parts)


def describe_masks(sampled: Sampled, drawing: Drawing) -> list[dict[str, Any]]:
    """The masks of an image for the page, best first; lengths in pixels of the stored image."""
    row, table = sampled.row, sampled.masks
    if not len(table):
        return []
    seeds_n2 = seed_points(table, row, drawing.seeds)
    area = float(row["height"] * row["width"])
    masks = []
    for i, one in enumerate(table.to_pylist()):
        red, green, blue = palette_color(i)
        mask: dict[str, Any] = {
            "d": outline(one["counts"], one["height"], one["width"]),
            "box": [round(v) for v in one["bbox"]],
            "score": round(one["score"], 4),
            "area": round(one["area"] / area, 5),
            "color": f"#{red:02x}{green:02x}{blue:02x}",
        }
        if one.get("texts"):
            mask["texts"] = [
                {"text": text, "score": None if math.isnan(score) else round(score, 4)}
                for text, score in zip(one["texts"], one["text_scores"], strict=True)
            ]
        if "score_raw" in one:
            mask["raw"] = round(one["score_raw"], 4)
        if seeds_n2 is not None:
            mask |= {"seed": [round(float(v), 1) for v in seeds_n2[i]], "scale": one["seed_scale"]}
        if sampled.soft is not None:
            mask["soft"] = soft_picture(sampled.soft[i])
        masks.append(mask)
    return masks


def soft_picture(map_hw: npt.NDArray[np.uint8]) -> str:
    """A soft map as a small coloured PNG, in a data URI; transparent where the map is 0."""
    picture = np.dstack([cv2.applyColorMap(map_hw, cv2.COLORMAP_INFERNO), map_hw])
    done, data = cv2.imencode(".png", picture)
    assert done
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode("ascii")
