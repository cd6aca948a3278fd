"""Masks as Segment Anything writes them: SA-1B's json files, and what its generator of all masks puts into folders."""

import csv
import json
import math
from pathlib import Path
from typing import Any

from ...schemas.errors import UserError
from ...schemas.records import ImageRef
from .base import ByName, FoundMask, Size, digest_of, encode, rle_of_json, usable
from .png import read_png

TABLE = "metadata.csv"


class SamMasks:
    """See `base.MaskFiles`. A score is the IoU that SAM predicts, at most 1, or else the mask's stability."""

    class_names: tuple[str, ...] = ("object",)

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise UserError(f"{root} is not a folder: name the one that holds SAM's json files or folders of PNG.")
        jsons = sorted(path for path in root.rglob("*.json") if path.is_file())
        folders = sorted(path.parent for path in root.rglob(TABLE))
        if not jsons and not folders:
            raise UserError(f"{root} holds neither json files nor folders with {TABLE}: name SAM's output.")
        self._jsons, self._folders = ByName(root, jsons), ByName(root, folders)
        pngs = [path for folder in folders for path in sorted(folder.iterdir()) if path.is_file()]
        self.sha256 = digest_of(root, [*jsons, *pngs])

    def find(self, ref: ImageRef, size: Size) -> list[FoundMask]:
        """See `base.MaskFiles`."""
        if (path := self._jsons.find(ref.file_name)) is not None:
            return usable(_from_json(path, size), size)
        if (folder := self._folders.find(ref.file_name)) is not None:
            return usable(_from_folder(folder, size), size)
        return []


def _from_json(path: Path, size: Size) -> list[FoundMask]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return []
    rows = content.get("annotations") if isinstance(content, dict) else content
    found = []
    for row in rows if isinstance(rows, list) else []:
        counts = rle_of_json(row.get("segmentation"), size) if isinstance(row, dict) else None
        if counts is not None:
            found.append(FoundMask(counts, _score(row)))
    return found


def _from_folder(folder: Path, size: Size) -> list[FoundMask]:
    found = []
    with (folder / TABLE).open(newline="", encoding="utf-8") as table:
        for row in csv.DictReader(table):
            name = row.get("id") or ""
            mask_HW = read_png(folder / f"{name}.png", size) if name.isdecimal() else None
            if mask_HW is not None:
                found.append(FoundMask(encode(mask_HW), _score(row)))
    return found


def _score(row: dict[str, Any]) -> float:
    for key in ("predicted_iou", "stability_score", "score"):
        try:
            value = float(row[key])
        except (KeyError, TypeError, ValueError):
            continue
        if math.isfinite(value):
            return min(1.0, max(0.0, value))
    return 1.0
