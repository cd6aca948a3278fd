"""The order of photographs, and what becomes of bad ones."""

from pathlib import Path

import numpy as np
import pytest

from corpus import write_photos
from saliency_prompt.schemas.records import ImageRef
from saliency_prompt.schemas.training.densecl import PhotosConfig
from saliency_prompt.stages.recipes.densecl.photos import PhotoSquares, StepBatches, make_loader


@pytest.fixture
def refs(tmp_path: Path) -> list[ImageRef]:
    paths = write_photos(tmp_path / "photos", 6, height=60, width=90)
    paths[2].write_bytes(b"no image")
    paths[3].write_bytes(paths[3].read_bytes()[:400])
    return [ImageRef(i, path.name, str(path)) for i, path in enumerate(paths)]


@pytest.mark.parametrize("cache_gb", [0.0, 1.0])
def test_bad_photographs_are_replaced_by_the_next_and_told_once(refs: list[ImageRef], cache_gb: float) -> None:
    photos = PhotoSquares(refs, PhotosConfig(side=32, cache_gb=cache_gb))
    assert photos.cached == (cache_gb > 0)
    batch = photos.__getitems__([2, 4, 1])
    assert [(s.index, s.reason) for s in batch.skipped] == [(2, "unsupported_format"), (3, "decode_failed")]
    assert np.array_equal(batch.pixels[0], batch.pixels[1])
    assert not np.array_equal(batch.pixels[0], batch.pixels[2])
    again = photos.__getitems__([2, 4, 1])
    assert again.skipped == ()
    assert np.array_equal(again.pixels, batch.pixels)
    assert again.aspect.tolist() == batch.aspect.tolist() == [1.5, 1.5, 1.5]


def test_what_is_known_to_be_bad_is_not_read_again(refs: list[ImageRef]) -> None:
    batch = PhotoSquares(refs, PhotosConfig(side=32), known_bad=[2, 3]).__getitems__([3, 2])
    assert batch.skipped == ()
    assert np.array_equal(batch.pixels[0], batch.pixels[1])


def test_upright_photographs_keep_their_aspect(refs: list[ImageRef]) -> None:
    assert PhotoSquares(refs, PhotosConfig(side=32))[5].aspect.tolist() == [60 / 90]


def steps(start: int = 0, stop: int = 6, rank: int = 0, world: int = 1, seed: int = 1) -> list[list[int]]:
    return list(StepBatches(13, 4, 3, seed, start, stop, rank, world))


def test_every_epoch_is_another_permutation_of_whole_batches() -> None:
    first, second = steps()[:3], steps()[3:]
    for epoch in (first, second):
        assert len({i for batch in epoch for i in batch}) == 12
    assert first != second
    assert first == steps()[:3] != steps(seed=2)[:3]


def test_any_step_can_be_the_first() -> None:
    assert steps(start=4) == steps()[4:]


def test_processes_share_a_batch_in_order() -> None:
    shares = zip(steps(rank=0, world=2), steps(rank=1, world=2), strict=True)
    assert [a + b for a, b in shares] == steps()


def test_loader_processes_give_the_same_and_share_the_cache(refs: list[ImageRef]) -> None:
    batches = StepBatches(6, 3, 2, 0, 0, 6)
    alone = list(make_loader(PhotoSquares(refs, PhotosConfig(side=32)), batches, 0, pin=False))
    photos = PhotoSquares(refs, PhotosConfig(side=32))
    shared = list(make_loader(photos, batches, 1, pin=False))
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(alone, shared, strict=True))
    assert sorted(s.index for batch in shared for s in batch.skipped) == [2, 3]
    assert photos.__getitems__([2, 3]).skipped == ()  # found out by the other process
