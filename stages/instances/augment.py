"""Augmentation of images with their masks, by torchvision's transforms; the same for the same seed and place."""

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from ...schemas.training.sections import DataConfig
from ...store.run import Skipped
from .samples import Sample, SampleError, after_transforms

FILL = 128  # of pixels that a rotation brings in from outside
SMALLEST, LARGEST = 32, 8192  # sides that large-scale jitter may ask for, in pixels
TRIES = 50  # samples in a row that may be unusable


def build_transforms(config: DataConfig) -> Any:
    """Flip, rotation and large-scale jitter's crop, as configured. Images turn bilinearly, masks to the nearest pixel.

    The jitter's scale is no part of it: it is the size that an image is decoded at.
    """
    fill: Any = {tv_tensors.Image: FILL, tv_tensors.Mask: 0}
    steps: list[Any] = []
    if config.rotate:
        bilinear = v2.InterpolationMode.BILINEAR
        turn = v2.RandomRotation((-config.rotate, config.rotate), interpolation=bilinear, fill=fill)
        steps.append(v2.RandomApply([turn], config.rotate_probability))
    if config.jitter is not None:
        side = (config.short_side, config.short_side)
        steps.append(v2.RandomCrop(side, pad_if_needed=True, fill=fill))
    if config.flip:
        steps.append(v2.RandomHorizontalFlip(config.flip))
    return v2.Compose(steps) if steps else None


class Samples(Protocol):
    """A data set whose images are decoded at the size that is asked for."""

    def __len__(self) -> int: ...

    def load(self, index: int, size: tuple[int, int]) -> Sample:
        """An item at (short side, at most long side)."""
        ...


class Augmented(Dataset[Sample]):
    """A data set whose samples are augmented by what (seed, turn) gives; the index is (place, turn).

    A sample that cannot be used is replaced by the next one, and named in its target's `skipped`.
    """

    def __init__(self, data: Samples, config: DataConfig, seed: int) -> None:
        self._data, self._config, self._seed = data, config, seed
        self._transforms = build_transforms(config)

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, place_and_turn: tuple[int, int]) -> Sample:
        place, turn = place_and_turn
        size = self._size(turn)
        skipped: list[Skipped] = []
        for _ in range(min(TRIES, len(self))):
            try:
                image, target = self._data.load(place, size)
            except SampleError as trouble:
                skipped.append(Skipped(place, trouble.file_name, trouble.reason, str(trouble)))
                place = (place + 1) % len(self)
                continue
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(hash((self._seed, turn)) % 2**63)
                sample = (image, {**target, "skipped": skipped})
                return sample if self._transforms is None else after_transforms(self._move(*sample))
        raise SampleError(skipped[0].error, skipped[0].reason, skipped[0].file_name)

    def _size(self, turn: int) -> tuple[int, int]:
        """(short side, at most long side) to decode at, drawn for the turn."""
        config, draw = self._config, np.random.default_rng((self._seed, turn, 1))
        if config.jitter is not None:
            side = round(config.short_side * draw.uniform(*config.jitter))
            side = min(max(side, SMALLEST), LARGEST)
            return side, side
        if config.short_sides:
            return config.short_sides[int(draw.integers(len(config.short_sides)))], config.long_side
        return config.short_side, config.long_side

    def _move(self, image: Tensor, target: dict[str, Any]) -> Sample:
        """Image, masks and layers go through the transforms; boxes, where they don't follow from the masks."""
        moved: dict[str, Any] = {"masks": target["masks"], "layers": target["layers"]}
        if bool(target["own_box"].any()):
            moved["boxes"] = target["boxes"]
        image, moved = self._transforms(image, moved)
        return tv_tensors.Image(image), {**target, **moved}
