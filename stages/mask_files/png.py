"""Masks as PNG files: one of numbers for each image, or a folder for each image with a file for each mask."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from ...schemas.records import ImageRef
from ..read import BadImage
from .base import ByName, FoundMask, Size, digest_of, encode, files_below, usable

VOID = 255  # of images with a palette: the border around objects in PASCAL VOC


class PngMasks:
    """See `base.MaskFiles`. Every number but 0 is a mask; in a folder of an image every file is one."""

    class_names: tuple[str, ...] = ("object",)

    def __init__(self, root: Path) -> None:
        paths = files_below(root, ".png")
        self._files = ByName(root, paths)
        self._folders = ByName(root, sorted({path.parent for path in paths} - {root}))
        self.sha256 = digest_of(root, paths)

    def find(self, ref: ImageRef, size: Size) -> list[FoundMask]:
        """See `base.MaskFiles`."""
        folder = self._folders.find(ref.file_name)
        if folder is not None:
            drawn = (read_png(path, size) for path in sorted(folder.glob("*.png")))
            return usable([FoundMask(encode(mask_HW)) for mask_HW in drawn if mask_HW is not None], size)
        path = self._files.find(ref.file_name)
        numbers_HW = None if path is None else read_png(path, size)
        if numbers_HW is None:
            return []
        values = np.unique(numbers_HW)
        return usable([FoundMask(encode(numbers_HW == value)) for value in values if value], size)


def read_png(path: Path, size: Size) -> npt.NDArray[np.int64] | None:
    """The numbers of a PNG of one channel, or of any channel's being set; None if it is broken.

    Raises BadImage if it is of another size.
    """
    try:
        with Image.open(path) as image:
            if (image.height, image.width) != size:
                raise BadImage("size_mismatch", f"{size[1]} x {size[0]}, but its masks are of another size")
            pixels = np.asarray(image).astype(np.int64)
            if image.mode == "P":
                pixels[pixels == VOID] = 0
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError):
        return None
    return pixels if pixels.ndim == 2 else (pixels[..., :3] != 0).any(2).astype(np.int64)
