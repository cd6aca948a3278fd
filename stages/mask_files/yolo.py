"""Masks of a YOLO segmentation data set or of its predictions: a text file of polygons for each image."""

from pathlib import Path

import numpy as np
import yaml

from ...schemas.errors import UserError
from ...schemas.records import ImageRef
from ...schemas.yaml_text import read_yaml
from .base import ByName, FoundMask, Size, digest_of, files_below, rle_of_polygons, usable

_SKIPPED = ("labels", "train", "val", "test")  # folders between the root and a photograph's name


class YoloMasks:
    """See `base.MaskFiles`. A line is a class, corners as fractions of the image, and perhaps a score.

    Lines of boxes and broken lines are left out.
    """

    def __init__(self, root: Path) -> None:
        paths = files_below(root, ".txt")
        self._files = ByName(root, paths, _SKIPPED)
        self.sha256 = digest_of(root, paths)
        self.class_names = _names(root)

    def find(self, ref: ImageRef, size: Size) -> list[FoundMask]:
        """See `base.MaskFiles`."""
        path = self._files.find(ref.file_name)
        if path is None:
            return []
        found = []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                numbers = [float(word) for word in line.split()]
            except ValueError:
                continue
            if len(numbers) < 7 or not np.isfinite(numbers).all() or numbers[0] < 0:
                continue
            label, *rest = numbers
            score = rest.pop() if len(rest) % 2 else 1.0
            corners = np.array(rest).reshape(-1, 2) * (size[1], size[0])
            counts = rle_of_polygons([corners.ravel()], size) if len(corners) >= 3 else None
            if counts is not None:
                found.append(FoundMask(counts, score, int(label)))
        return usable(found, size)


def _names(root: Path) -> tuple[str, ...]:
    """The names in `data.yaml`, none if there is no such file."""
    for path in (root / "data.yaml", root.parent / "data.yaml"):
        if path.is_file():
            try:
                content = read_yaml(str(path))
            except yaml.YAMLError:
                raise UserError(f"{path} is not valid YAML: repair it.") from None
            names = content.get("names") if isinstance(content, dict) else None
            if isinstance(names, dict) and all(type(key) is int for key in names):
                return tuple(str(names.get(i, f"class_{i}")) for i in range(max(names, default=-1) + 1))
            if isinstance(names, list):
                return tuple(map(str, names))
    return ()
