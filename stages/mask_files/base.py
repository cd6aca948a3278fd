"""What every format gives: the masks of one image, checked, and how files are found by the names of photographs."""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pycocotools import mask as coco_mask

from ...schemas.errors import UserError
from ...schemas.records import ImageRef
from ...store.rle import valid_rles
from ..read import BadImage

log = logging.getLogger(__name__)

Size = tuple[int, int]  # (height, width)


@dataclass(frozen=True, slots=True)
class FoundMask:
    """A mask as COCO compressed RLE, its score, and the index of its class."""

    counts: bytes
    score: float = 1.0
    label: int = 0


class MaskFiles(Protocol):
    """Masks of many images at one place. Safe to share between threads once it is made.

    `sha256` is the digest of all that counts; `class_names` are those of labels, in order.
    """

    @property
    def sha256(self) -> str: ...  # noqa: D102

    @property
    def class_names(self) -> tuple[str, ...]: ...  # noqa: D102

    def find(self, ref: ImageRef, size: Size, /) -> list[FoundMask]:
        """The masks of an image, in any order; none if the files do not know it, or for masks that are broken.

        Raises BadImage (`size_mismatch`) if they are those of an image of another size.
        """


def encode(mask_HW: npt.NDArray[Any]) -> bytes:
    """COCO compressed RLE of a mask: everything but 0 is inside."""
    counts: bytes = coco_mask.encode(np.asfortranarray(mask_HW != 0, np.uint8))["counts"]
    return counts


def rle_of_polygons(polygons: Sequence[Any], size: Size) -> bytes | None:
    """The union of polygons [x0, y0, x1, y1, ...] in pixels; None if none has three finite corners.

    Corners far outside are brought nearer, since the rasteriser's memory goes with the length of outlines.
    """
    height, width = size
    usable = []
    for polygon in polygons:
        try:
            corners = np.asarray(polygon, np.float64).reshape(-1, 2)
        except (TypeError, ValueError):
            continue
        if len(corners) >= 3 and np.isfinite(corners).all():
            usable.append(np.clip(corners, (-width, -height), (2 * width, 2 * height)).ravel().tolist())
    if not usable:
        return None
    counts: bytes = coco_mask.merge(coco_mask.frPyObjects(usable, height, width))["counts"]
    return counts


def rle_of_json(segmentation: Any, size: Size) -> bytes | None:
    """COCO's `segmentation` in any of its three forms; None if it is broken. Raises BadImage for another size."""
    if isinstance(segmentation, list):
        return rle_of_polygons(segmentation, size)
    if not isinstance(segmentation, dict):
        return None
    if list(segmentation.get("size", ())) != list(size):
        raise BadImage("size_mismatch", f"{size[1]} x {size[0]}, but its masks are of another size")
    counts = segmentation.get("counts")
    if isinstance(counts, list):
        if not all(type(run) is int and run >= 0 for run in counts) or sum(counts) != size[0] * size[1]:
            return None
        packed: bytes = coco_mask.frPyObjects({"size": list(size), "counts": counts}, *size)["counts"]
        return packed
    return counts.encode("ascii", "replace") if isinstance(counts, str) else None


def usable(masks: Iterable[FoundMask], size: Size) -> list[FoundMask]:
    """Those that are masks of that size and not empty: pycocotools trusts what it decodes."""
    listed = list(masks)
    if not listed:
        return []
    n = len(listed)
    counts = pa.chunked_array([pa.array([one.counts for one in listed], pa.binary())])
    area_n = valid_rles(counts, np.full(n, size[0], np.int32), np.full(n, size[1], np.int32))
    return [one for one, area in zip(listed, area_n, strict=True) if area > 0]


class ByName:
    """Files or folders below a root, found by the names of photographs without their suffix.

    A photograph `a/b.jpg` belongs to `a/b`, else to the only one that is called `b`.
    """

    def __init__(self, root: Path, paths: Iterable[Path], skipped: Sequence[str] = ()) -> None:
        self._by_path: dict[str, Path] = {}
        self._by_stem: dict[str, Path | None] = {}
        for path in paths:
            parts = [part for part in path.relative_to(root).parts if part not in skipped]
            stem = PurePosixPath(*parts)
            stem = stem if path.is_dir() else stem.with_suffix("")
            self._by_path[str(stem)] = path
            self._by_stem[stem.name] = None if stem.name in self._by_stem else path

    def find(self, file_name: str) -> Path | None:
        """The one that belongs to a photograph, None if there is none or it is not clear which."""
        stem = PurePosixPath(file_name).with_suffix("") if PurePosixPath(file_name).name else PurePosixPath("-")
        return self._by_path.get(str(stem)) or self._by_stem.get(stem.name)

    def __len__(self) -> int:
        return len(self._by_path)


def files_below(root: Path, suffix: str) -> list[Path]:
    """All files with a suffix below a folder, in order of their names. Raises UserError if there is none."""
    if not root.is_dir():
        raise UserError(f"{root} is not a folder: name the one that holds the {suffix} files.")
    found = sorted(path for path in root.rglob(f"*{suffix}") if path.is_file())
    if not found:
        raise UserError(f"{root} holds no {suffix} file: name the folder that does, or another --format.")
    return found


def digest_of(root: Path, paths: Iterable[Path]) -> str:
    """One digest over the names and contents of files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as source:
            inner = hashlib.file_digest(source, "sha256").hexdigest()
        digest.update(f"{path.relative_to(root).as_posix()}\0{inner}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
