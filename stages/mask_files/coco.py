"""Masks of a COCO json: instances (with `images` and `annotations`) or results (a list of detections)."""

import hashlib
import json
import math
from pathlib import Path, PurePosixPath
from typing import Any

from ...schemas.errors import UserError
from ...schemas.records import ImageRef
from .base import FoundMask, Size, rle_of_json, usable


class CocoMasks:
    """See `base.MaskFiles`. Crowds and annotations without a mask are left out; results have no names of images.

    Images are found by name, or by id where the json names none. Raises UserError for what is no such json.
    """

    def __init__(self, path: Path) -> None:
        try:
            data = path.read_bytes()
            content = json.loads(data)
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}): check the path.") from None
        except (ValueError, RecursionError):
            raise UserError(f"{path} is not valid JSON: write it again.") from None
        self.sha256 = hashlib.sha256(data).hexdigest()
        whole = content if isinstance(content, dict) else {"annotations": content}
        annotations = whole.get("annotations")
        if not isinstance(annotations, list) or not all(isinstance(one, dict) for one in annotations):
            raise UserError(f"{path} has neither a list of results nor `annotations`: give a COCO json.")
        images = whole.get("images", [])
        self._ids = _ids_by_name(images if isinstance(images, list) else [])
        self._labels, self.class_names = _classes(whole.get("categories"), annotations)
        self._by_image: dict[int, list[dict[str, Any]]] = {}
        for one in annotations:
            if type(one.get("image_id")) is int and not one.get("iscrowd"):
                self._by_image.setdefault(one["image_id"], []).append(one)

    def find(self, ref: ImageRef, size: Size) -> list[FoundMask]:
        """See `base.MaskFiles`."""
        image_id = ref.image_id
        if self._ids:
            by_name = self._ids.get(ref.file_name, self._ids.get(PurePosixPath(ref.file_name).name))
            if by_name is None:
                return []
            image_id = by_name
        found = []
        for one in self._by_image.get(image_id, []):
            counts = rle_of_json(one.get("segmentation"), size)
            if counts is not None:
                score = one.get("score", 1.0)
                good = isinstance(score, int | float) and math.isfinite(score)
                found.append(
                    FoundMask(counts, float(score) if good else 0.0, self._labels.get(one.get("category_id"), 0))
                )
        return usable(found, size)


def _ids_by_name(images: list[Any]) -> dict[str, int]:
    """Ids by the names of images, and by their last part where that is unlike all others."""
    full: dict[str, int] = {}
    last: dict[str, int | None] = {}
    for image in images:
        if isinstance(image, dict) and isinstance(image.get("file_name"), str) and type(image.get("id")) is int:
            full[image["file_name"]] = image["id"]
            name = PurePosixPath(image["file_name"]).name
            last[name] = None if name in last else image["id"]
    return {name: image_id for name, image_id in last.items() if image_id is not None} | full


def _classes(categories: Any, annotations: list[dict[str, Any]]) -> tuple[dict[Any, int], tuple[str, ...]]:
    """Labels by category id, in the order of ids, and their names."""
    names: dict[int, str] = {}
    for one in categories if isinstance(categories, list) else []:
        if isinstance(one, dict) and type(one.get("id")) is int:
            names[one["id"]] = str(one.get("name", f"category_{one['id']}"))
    used = {one["category_id"] for one in annotations if type(one.get("category_id")) is int}
    if not names:
        names = {number: f"category_{number}" for number in used} if len(used) > 1 else dict.fromkeys(used, "object")
    order = sorted({*names, *used})
    return (
        {number: label for label, number in enumerate(order)},
        tuple(names.get(number, f"category_{number}") for number in order) or ("object",),
    )
