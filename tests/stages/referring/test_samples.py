from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saliency_prompt.models.unilseg.tokenizer import Tokenizer
from saliency_prompt.schemas.training.unilseg import ReferringData
from saliency_prompt.stages.instances.samples import SampleError
from saliency_prompt.stages.referring.pseudo import BINS, add_scores, bin_score, bins_below, passes
from saliency_prompt.stages.referring.references import References
from saliency_prompt.stages.referring.samples import (
    MixedOrder,
    ReferringSamples,
    Shares,
    collate_pairs,
    hide_patches,
)
from word_scenes import make_word_scene, write_word_scenes


def test_scenes_mean_what_they_say() -> None:
    for number in range(20):
        scene = make_word_scene(0, number)
        for text, meant in scene.texts:
            for colour in ("red", "green", "blue", "yellow"):
                if text == f"everything {colour}":
                    assert [scene.things[i].colour for i in meant] == [colour] * len(meant)
            if text.startswith("the ") and len(text.split()) == 3 and "object" not in text:
                assert [scene.things[i].name for i in meant] == [text.removeprefix("the ")]
        assert not (sum(thing.mask.astype(int) for thing in scene.things) > 1).any()


def test_a_missing_photograph_is_passed_over_and_named(tmp_path: Path) -> None:
    path = write_word_scenes(tmp_path, 0, 3, texts=2)
    (tmp_path / "images" / "000000.png").unlink()
    data = ReferringData(side=64, hide=0.0)
    samples = ReferringSamples([References(str(path), str(tmp_path / "images"))], Tokenizer(), 40, data, 0)
    batch = collate_pairs([samples[(0, 0, 5)], samples[(0, 2, 6)]])
    assert [one.file_name for one in batch.skipped] == ["000000.png", "000000.png"]
    assert batch.images.shape == (2, 3, 64, 64)
    assert batch.masks.shape == (2, 64, 64)
    assert torch.equal(batch.images[0], batch.images[1])
    for image in (tmp_path / "images").iterdir():
        image.unlink()
    with pytest.raises(SampleError, match="000000"):
        samples[(0, 0, 0)]


def test_hide_and_seek_hides_whole_patches_of_its_share() -> None:
    image = np.full((96, 96, 3), 200, np.uint8)
    data = ReferringData(side=96, hide=0.3, hide_patches=(16,))
    hidden = np.array([(hide_patches(image, data, np.random.default_rng(i)) != 200).all(2) for i in range(60)])
    patches = hidden.reshape(60, 6, 16, 6, 16)
    assert (patches.all((2, 4)) == patches.any((2, 4))).all()
    assert abs(hidden.mean() - 0.3) < 0.05
    off = ReferringData(side=96, hide=0.3, hide_patches=(0,))
    assert hide_patches(image, off, np.random.default_rng(0)) is image


@given(st.integers(0, 50), st.sampled_from([1, 2, 4]), st.sampled_from([(7,), (30, 5), (4, 4, 100)]))
def test_processes_share_the_same_draw(start: int, world: int, counts: tuple[int, ...]) -> None:
    shares = Shares(counts, 0.5, (True,) * len(counts), 0)
    alone = list(MixedOrder(shares, 8, 3, start, start + 3, 0, 1))
    parts = [list(MixedOrder(shares, 8, 3, start, start + 3, rank, world)) for rank in range(world)]
    for step in range(3):
        assert [one for part in parts for one in part[step]] == alone[step]
        assert all(0 <= place < counts[source] for source, place, _ in alone[step])
    assert alone[1:] == list(MixedOrder(shares, 8, 3, start + 1, start + 3, 0, 1))


def test_a_single_source_is_gone_through_whole() -> None:
    order = MixedOrder(Shares((10,), 0.5, (False,), 0), 5, 0, 0, 4, 0, 1)
    places = [place for batch in order for _, place, _ in batch]
    assert sorted(places[:10]) == sorted(places[10:]) == list(range(10))


def test_sources_are_drawn_by_the_root_of_their_pairs_and_the_first_stage_from_pseudo_alone() -> None:
    shares = Shares((900, 100, 400), 0.5, (True, False, False), 10)
    np.testing.assert_allclose(shares.at(10), np.array([3, 1, 2]) / 6)
    np.testing.assert_allclose(shares.at(9), [1, 0, 0])


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=200), st.floats(0, 99))
def test_the_threshold_drops_at_most_the_share(scores: list[float], drop: float) -> None:
    values = np.array(scores)
    counts = np.zeros(1024, np.int64)
    half = len(values) // 2
    add_scores(counts, values[:half])
    add_scores(counts, values[half:])
    dropped = bins_below(counts, drop)
    kept = sum(passes(score, dropped) for score in scores)
    assert kept >= len(scores) * (1 - drop / 100) - 1e-6
    assert passes(float("nan"), dropped)


def test_the_threshold_is_the_quantile_of_spread_scores() -> None:
    counts = np.zeros(1024, np.int64)
    values = np.linspace(-0.5, 0.5, 1001)
    add_scores(counts, values)
    assert bin_score(bins_below(counts, 20.0)) == pytest.approx(np.quantile(values, 0.2), abs=0.004)
    assert bins_below(np.zeros(BINS, np.int64), 20.0) == 0
