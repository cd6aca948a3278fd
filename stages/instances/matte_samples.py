"""Mattes as training samples: a photograph's objects with their alphas.

Shape legend: M objects, H W pixels.
"""

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from ...models.detector import Targets
from ...models.solo.matting import MattingTargets
from ...schemas.errors import UserError
from ...schemas.records import ImageRef
from ...store.weights import sha256_of
from ..matting import Floats, read_alpha
from .samples import Batch, Sample, SampleError, load_pixels, make_sample

LAYER, SOFT = "alphas", "soft"
PARTS = (0.0, 1.0)  # alphas that a binary mask has
INSIDE = 0.5  # alpha from which a pixel is in the object's mask


class MatteImages(Dataset[Sample]):
    """Photographs that have a matte: STEM.png in the folder of mattes, or a folder STEM with one for each object.

    A matte that does not fit makes its own sample unusable, and no other.
    """

    def __init__(
        self, refs: list[ImageRef], mattes: str, *, size: tuple[int, int], max_pixels: int = 100_000_000
    ) -> None:
        folder = Path(mattes)
        if not folder.is_dir():
            raise UserError(f"{mattes} is no folder: give the folder with the mattes of the photographs.")
        found = [(ref, matte_files(folder, ref.file_name)) for ref in refs]
        self._items = [(ref, files) for ref, files in found if files]
        if not self._items:
            raise UserError(
                f"No photograph has a matte in {mattes}: name each as its photograph, with the ending .png."
            )
        self._size, self._max_pixels = size, max_pixels

    def __len__(self) -> int:
        return len(self._items)

    def refs(self) -> list[ImageRef]:
        """The photographs that have mattes, in order."""
        return [ref for ref, _ in self._items]

    def digest(self) -> str:
        """Of all mattes, by name and content."""
        lines = [f"{ref.file_name} {sha256_of(file)}" for ref, files in self._items for file in files]
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()

    def __getitem__(self, index: int) -> Sample:
        return self.load(index, self._size)

    def alphas(self, index: int, stored: tuple[int, int]) -> list[Floats]:
        """The alphas of a photograph at its stored size, in 0..1. Raises UserError for one of another size."""
        return [read_alpha(file, stored) for file in self._items[index][1]]

    def load(self, index: int, size: tuple[int, int]) -> Sample:
        """An item decoded at (short side, at most long side)."""
        ref, _ = self._items[index]
        pixels, stored = load_pixels(ref, size, self._max_pixels)
        try:
            alphas = self.alphas(index, stored)
        except UserError as trouble:
            raise SampleError(str(trouble), "annotation", ref.file_name) from None
        height, width = pixels.shape[:2]
        small = [_bytes(cv2.resize(alpha, (width, height), interpolation=cv2.INTER_AREA)) for alpha in alphas]
        alphas_MHW = np.stack(small)
        masks_MHW = (alphas_MHW > 255 * INSIDE).astype(np.uint8)
        seen = masks_MHW.any((1, 2))
        soft = torch.tensor([[not np.isin(alpha, PARTS).all()] for alpha in alphas])
        about = {"image_id": ref.image_id, "file_name": ref.file_name, "stored": stored}
        return make_sample(
            pixels,
            masks_MHW[seen],
            [0] * int(seen.sum()),
            about,
            {SOFT: soft[torch.from_numpy(seen)].float()},
            layers={LAYER: alphas_MHW[seen]},
        )


def matte_files(folder: Path, file_name: str) -> list[Path]:
    """The mattes of a photograph: STEM.png, or all PNGs in a folder STEM."""
    stem = folder / Path(file_name).with_suffix("")
    alone = stem.with_name(f"{stem.name}.png")
    return [alone] if alone.is_file() else sorted(stem.glob("*.png"))


def matting_targets(batch: Batch) -> list[Targets]:
    """What `MattingSolo` learns from."""
    return [
        MattingTargets(
            one.masks,
            one.labels,
            one.boxes,
            one.weights,
            one.has_mask,
            alphas=layers[LAYER].float() / 255,
            soft=soft,
        )
        for one, layers, soft in zip(batch.targets(), batch.layers, batch.soft, strict=True)
    ]


def _bytes(alpha_HW: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    levels: npt.NDArray[np.uint8] = np.rint(255 * alpha_HW).astype(np.uint8)
    return levels
