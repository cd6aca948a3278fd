"""Which masks are left when only some may be learned from."""

import math
from pathlib import Path

import numpy as np
import pytest

from corpus import write_scenes
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.stages.instances.labelled import CocoInstances


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven scenes of three objects each."""
    folder = tmp_path_factory.mktemp("limited") / "scenes"
    write_scenes(folder, 7)
    return folder


def read(scenes: Path, **limits: object) -> CocoInstances:
    return CocoInstances(str(scenes), str(scenes.parent / "gt.json"), size=(64, 96), **limits)  # type: ignore[arg-type]


def known(data: CocoInstances) -> list[list[bool]]:
    return [data.load(index, (64, 96))[1]["has_mask"].tolist() for index in range(len(data))]


@pytest.mark.parametrize("percent", [5.0, 10.0, 33.0, 50.0, 99.0])
def test_masks_are_drawn_over_annotations_and_classes_stay(scenes: Path, percent: float) -> None:
    whole, limited = read(scenes), read(scenes, mask_percent=percent)
    assert whole.masks_chosen is None
    drawn = np.random.default_rng(1).choice(21, math.floor(21 * percent / 100), replace=False)
    assert limited.masks_chosen == sorted(drawn.tolist())
    flat = [one for image in known(limited) for one in image]
    assert [number for number, one in enumerate(flat) if one] == limited.masks_chosen
    for index in range(7):
        before, after = (one.load(index, (64, 96))[1] for one in (whole, limited))
        assert after["labels"].tolist() == before["labels"].tolist()
        assert after["boxes"].round().tolist() == before["boxes"].round().tolist()


def test_or_over_images_as_the_published_program_does(scenes: Path) -> None:
    limited = read(scenes, mask_percent=50.0, mask_per_image=True)
    images = [set(image) for image in known(limited)]
    assert images.count({True}) == 3
    assert images.count({False}) == 4


def test_masks_are_drawn_among_the_images_that_are_left(scenes: Path) -> None:
    limited = read(scenes, percent=60.0, mask_percent=50.0)
    assert len(limited) == 4
    assert limited.chosen == sorted(np.random.default_rng(1).choice(7, 4, replace=False).tolist())
    assert sum(map(sum, known(limited))) == 6


def test_none_at_all_is_a_mistake(scenes: Path) -> None:
    with pytest.raises(UserError, match=r"4 % of 21 masks is none: raise --mask-fraction"):
        read(scenes, mask_percent=4.0)
    with pytest.raises(UserError, match=r"10 % of 7 images is none: raise --mask-fraction"):
        read(scenes, mask_percent=10.0, mask_per_image=True)
    with pytest.raises(UserError, match=r"10 % of 7 images is none: raise --fraction"):
        read(scenes, percent=10.0)
