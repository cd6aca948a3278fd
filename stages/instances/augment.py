"""Augmentation of images with their masks, by torchvision's transforms; the same for the same seed and place."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from ...schemas.instances import DataConfig
from .samples import Sample, SampleError, after_transforms

FILL = 128  # of pixels that a rotation brings in from outside
TRIES = 50  # samples in a row that may be unusable


def build_transforms(config: DataConfig) -> Any:
    """Flip, rotation and large-scale jitter, as configured."""
    fill: Any = {tv_tensors.Image: FILL, tv_tensors.Mask: 0}
    steps: list[Any] = []
    if config.rotate:
        turn = v2.RandomRotation((-config.rotate, config.rotate), fill=fill)
        steps.append(v2.RandomApply([turn], config.rotate_probability))
    if config.jitter is not None:
        side = (config.short_side, config.short_side)
        steps.append(v2.ScaleJitter(side, config.jitter))
        steps.append(v2.RandomCrop(side, pad_if_needed=True, fill=fill))
    if config.flip:
        steps.append(v2.RandomHorizontalFlip(config.flip))
    return v2.Compose(steps) if steps else None


class Augmented(Dataset[Sample]):
    """A data set whose samples are augmented by what (seed, turn) gives; the index is (place, turn).

    A sample that cannot be used is replaced by the next one, and named in its target's `skipped`.
    """

    def __init__(self, data: Dataset[Sample], transforms: Any, seed: int) -> None:
        self._data, self._transforms, self._seed = data, transforms, seed

    def __len__(self) -> int:
        return len(self._data)  # type: ignore[arg-type]

    def __getitem__(self, place_and_turn: tuple[int, int]) -> Sample:
        place, turn = place_and_turn
        skipped: list[str] = []
        for _ in range(min(TRIES, len(self))):
            try:
                image, target = self._data[place]
            except SampleError as trouble:
                skipped.append(str(trouble))
                place = (place + 1) % len(self)
                continue
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(hash((self._seed, turn)) % 2**63)
                sample = (image, {**target, "skipped": skipped})
                return sample if self._transforms is None else after_transforms(self._move(*sample))
        raise SampleError(skipped[0])

    def _move(self, image: Tensor, target: dict[str, Any]) -> Sample:
        """Image and masks alone go through the transforms: boxes follow from the masks."""
        moved: dict[str, Any]
        image, moved = self._transforms(image, {"masks": target["masks"]})
        return tv_tensors.Image(image), {**target, "masks": moved["masks"]}
