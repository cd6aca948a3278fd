"""Augmentation: what is resampled, how, and how often."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from corpus import write_photos
from saliency_prompt.schemas.records import ImageRef
from saliency_prompt.schemas.training.sections import DataConfig
from saliency_prompt.stages.instances.augment import FILL, Augmented, build_transforms
from saliency_prompt.stages.instances.samples import Sample, load_pixels, make_sample


class Stripes:
    """One image of 60 x 90 whose left half is an object; it remembers the sizes that it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return 1

    def load(self, index: int, size: tuple[int, int]) -> Sample:
        self.asked.append(size)
        scale = min(size[0] / 60, size[1] / 90)
        h, w = round(60 * scale), round(90 * scale)
        pixels = np.full((h, w, 3), 50, np.uint8)
        pixels[:, : w // 2] = 200
        mask = np.zeros((1, h, w), np.uint8)
        mask[:, :, : w // 2] = 1
        return make_sample(pixels, mask, [0], {"image_id": index, "file_name": "a", "stored": (60, 90)})


def config(**values: Any) -> DataConfig:
    return DataConfig(**{"short_side": 64, "long_side": 64, "flip": 0.0, **values})


def test_images_turn_bilinearly_and_masks_do_not() -> None:
    turned = build_transforms(config(rotate=30.0, rotate_probability=1.0))
    ramp = torch.arange(64).expand(3, 64, 64).mul(3).to(torch.uint8)
    torch.manual_seed(3)
    image, moved = turned(tv_tensors.Image(ramp), {"masks": tv_tensors.Mask((ramp[:1] > 90).to(torch.uint8))})
    assert set(moved["masks"].unique().tolist()) == {0, 1}
    inner = image[0, 24:40, 24:40]
    assert (inner % 3 != 0).any()  # between the ramp's steps, where the nearest pixel never is
    assert FILL in image[0, 0].tolist()


@pytest.mark.parametrize("jitter", [(0.6, 0.6), (1.0, 1.0), (2.0, 2.0)])
def test_large_scale_jitter_is_a_size_to_decode_at(jitter: tuple[float, float]) -> None:
    data = Stripes()
    image, target = Augmented(data, config(jitter=jitter), 0)[0, 0]
    side = round(64 * jitter[0])
    assert data.asked == [(side, side)]
    assert image.shape == (3, 64, 64)
    assert set(np.unique(image)) <= {50, 200, FILL}  # never resampled after decoding
    mask = target["masks"][0].bool()
    assert (image[0][mask] == 200).all()
    assert (image[0][~mask] != 200).all()


def test_the_jitter_is_drawn_for_each_turn_and_kept_within_bounds() -> None:
    data = Stripes()
    some = Augmented(data, config(jitter=(0.1, 2.0)), 0)
    for turn in range(40):
        some[0, turn]
    sides = [short for short, _ in data.asked]
    assert min(sides) == 32
    assert 96 < max(sides) <= 128
    again = Stripes()
    Augmented(again, config(jitter=(0.1, 2.0)), 0)[0, 7]
    assert again.asked == [data.asked[7]]


@pytest.mark.parametrize("values", [{}, {"short_sides": (48, 64)}])
def test_without_jitter_the_sizes_are_those_configured(values: dict[str, Any]) -> None:
    data = Stripes()
    ask: Callable[[int], Sample] = lambda turn: Augmented(data, config(**values), 0)[0, turn]  # noqa: E731
    for turn in range(12):
        ask(turn)
    assert {short for short, _ in data.asked} == set(values.get("short_sides", (64,)))


def test_images_can_be_stretched(tmp_path: Path) -> None:
    write_photos(tmp_path, 1, height=60, width=60)
    path = next(tmp_path.iterdir())
    ref = ImageRef(0, path.name, str(path), width=60, height=60)
    assert load_pixels(ref, (40, 80), 10_000)[0].shape == (40, 40, 3)
    assert load_pixels(ref, (40, 80), 10_000, keep_ratio=False)[0].shape == (40, 80, 3)
