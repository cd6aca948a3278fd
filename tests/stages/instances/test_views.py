"""The two views of FreeSOLO, and what is pasted onto one of them."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from saliency_prompt.schemas.training.freesolo import ViewsConfig
from saliency_prompt.stages.instances.samples import Sample, make_sample
from saliency_prompt.stages.instances.views import Views, collate_views, covers, erase, paste_objects


def sample(value: int, *boxes: tuple[int, int, int, int], size: tuple[int, int] = (40, 48)) -> Sample:
    """An image of one grey, and objects that fill boxes XYXY; vectors tell them apart."""
    masks = np.zeros((len(boxes), *size), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = 1
    about = {"image_id": value, "file_name": f"{value}.png", "stored": size}
    vectors = {"query": torch.full((len(boxes), 2), float(value)), "other": torch.zeros(len(boxes), 1)}
    pixels = np.full((*size, 3), value, np.uint8)
    return make_sample(pixels, masks, [0] * len(boxes), about, vectors, scores=[value / 255] * len(boxes))


class AllOf:
    """A generator that takes every object, in order."""

    def permutation(self, count: int) -> Any:
        return np.arange(count)

    def integers(self, high: int) -> int:
        return high - 1


ALL: Any = AllOf()


def test_pasted_objects_are_in_front() -> None:
    whole, target = paste_objects(sample(10, (0, 0, 20, 20)), sample(200, (15, 5, 30, 15)), ALL)
    mine, other = torch.as_tensor(target["masks"])
    assert int(other.sum()) == 15 * 10
    assert int(mine.sum()) == 20 * 20 - 5 * 10
    assert not bool((mine & other).any())
    assert bool((torch.as_tensor(whole)[:, other.bool()] == 200).all())
    assert bool((torch.as_tensor(whole)[:, ~other.bool()] == 10).all())
    assert target["boxes"].tolist() == [[0, 0, 20, 20], [15, 5, 30, 15]]
    assert target["vectors"]["query"][:, 0].tolist() == [10, 200]
    assert target["scores"].tolist() == pytest.approx([10 / 255, 200 / 255])


def test_boxes_follow_what_is_left() -> None:
    _, target = paste_objects(sample(10, (0, 0, 20, 20)), sample(200, (12, 0, 30, 20)), ALL)
    assert target["boxes"].tolist() == [[0, 0, 12, 20], [12, 0, 30, 20]]


@pytest.mark.parametrize(("right", "stays"), [(9, False), (10, True), (11, True)])
def test_what_would_cover_half_of_an_object_stays_away(right: int, stays: bool) -> None:
    _, target = paste_objects(sample(10, (0, 0, 20, 20)), sample(200, (0, 0, right, 20)), ALL)
    assert (len(target["masks"]) == 1) == stays


def test_covers_is_that_of_a_loop() -> None:
    rng = torch.Generator().manual_seed(0)
    pasted, masks = ((torch.rand(n, 8, 9, generator=rng) > 0.5).to(torch.uint8) for n in (6, 5))
    for share in (0.4, 0.5, 0.6):
        wanted = [any(int((p & m).sum()) >= share * int(m.sum()) for m in masks) for p in pasted]
        assert covers(pasted, masks, share).tolist() == wanted


def test_objects_that_are_covered_from_several_sides_go() -> None:
    source = sample(200, (0, 0, 9, 20), (9, 0, 18, 20), (18, 0, 20, 20))
    _, target = paste_objects(sample(10, (0, 0, 20, 20)), source, ALL)
    assert [float(one) for one in target["vectors"]["query"][:, 0]] == [200, 200, 200]


def test_the_source_is_resized_to_the_target() -> None:
    source = sample(200, (0, 0, 24, 20), size=(40, 48))
    _, target = paste_objects(sample(10, size=(80, 96)), source, ALL)
    assert torch.as_tensor(target["masks"]).shape == (1, 80, 96)
    assert target["boxes"].tolist() == [[0, 0, 48, 40]]


def test_the_number_that_is_pasted_is_uniform() -> None:
    source = sample(200, (0, 0, 4, 4), (10, 0, 14, 4), (20, 0, 24, 4))
    rng = np.random.default_rng(0)
    counts = [len(paste_objects(sample(10), source, rng)[1]["masks"]) for _ in range(400)]
    assert np.abs(np.bincount(counts, minlength=4) / 400 - 0.25).max() < 0.08


def test_patches_are_noise_of_the_right_size() -> None:
    image = torch.zeros(3, 60, 80, dtype=torch.uint8)
    shares = []
    for seed in range(60):
        erased = erase(image, np.random.default_rng(seed))
        shares.append(float((erased != 0).any(0).float().mean()))
    assert int(image.sum()) == 0  # it is a copy
    assert 0.02 < sum(one > 0.01 for one in shares) / 60 < 1  # not always
    assert 0.05 < np.mean(shares) < 0.3
    assert max(shares) < 0.55


class Fixed(Dataset[Sample]):
    def __init__(self, *samples: Sample) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, place_and_turn: tuple[int, int]) -> Sample:
        return self.samples[place_and_turn[0]]


def views_of(config: ViewsConfig, *samples: Sample, seed: int = 0) -> Any:
    made = Views(Fixed(*samples), config, seed)
    return collate_views([made[place, 7 + place] for place in range(len(made))], 8, config, "query")


def test_a_batch_is_weak_views_then_strong_ones_of_the_same_geometry() -> None:
    samples = [sample(50, (0, 0, 20, 20)), sample(150, (30, 20, 46, 38)), sample(250)]
    batch = views_of(ViewsConfig(paste=False), *samples)
    assert batch.images.shape[0] == 6
    for weak, strong in ((0, 3), (1, 4), (2, 5)):
        assert torch.equal(batch.masks[weak], batch.masks[strong])
        assert batch.image_ids[weak] == batch.image_ids[strong]
    assert bool((batch.images[0, :, :40, :48] == 50).all())
    assert any(not torch.equal(batch.images[i], batch.images[i + 3]) for i in range(3))
    assert batch.seeds[1].tolist() == [[150, 150]]


def test_objects_come_from_the_mirrored_place_of_the_weak_views() -> None:
    samples = [sample(50, (0, 0, 9, 9)), sample(150, (20, 20, 29, 29)), sample(200, (30, 0, 39, 9))]
    seen: dict[int, set[float]] = {place: set() for place in range(3)}
    for seed in range(12):
        batch = views_of(ViewsConfig(), *samples, seed=seed)
        for place in range(3):
            seen[place] |= set(batch.seeds[3 + place][:, 0].tolist())
            assert len(batch.masks[place]) == 1
    assert seen == {0: {50, 200}, 1: {150}, 2: {50, 200}}  # the middle one has no partner


def test_the_same_seed_and_turn_give_the_same_batch() -> None:
    samples = [sample(50, (0, 0, 9, 9)), sample(150, (20, 20, 29, 29))]
    first, second, other = (views_of(ViewsConfig(), *samples, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.images, second.images)
    assert not torch.equal(first.images, other.images)


def test_without_a_strong_view_the_batch_is_what_it_was() -> None:
    batch = views_of(ViewsConfig(strong=False), sample(50, (0, 0, 9, 9)), sample(9))
    assert len(batch.images) == 2


def test_samples_without_objects_are_stood() -> None:
    batch = views_of(ViewsConfig(), sample(50), sample(150))
    assert [len(one) for one in batch.masks] == [0] * 4
    none: Tensor = batch.seeds[0]
    assert len(none) == 0
