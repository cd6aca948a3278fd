import numpy as np
import pytest

from saliency_prompt.stages.repeat_factors import draw_repeats, repeat_factors


def test_rare_categories_repeat_their_images() -> None:
    images = [[1, 2], [1], [1], [], [1, 1, 3]]
    factors = repeat_factors(images, threshold=0.8)
    rare = (0.8 / 0.2) ** 0.5
    assert factors.tolist() == pytest.approx([rare, 1, 1, 1, rare])
    assert repeat_factors(images).tolist() == [1] * 5


def test_images_are_drawn_as_often_as_their_factors_say() -> None:
    factors = np.array([1.0, 2.25, 3.0])
    generator = np.random.default_rng(0)
    counts = np.array([np.bincount(draw_repeats(factors, generator), minlength=3) for _ in range(2000)])
    assert set(counts[:, 0].tolist()) == {1}
    assert set(counts[:, 1].tolist()) == {2, 3}
    assert set(counts[:, 2].tolist()) == {3}
    assert counts[:, 1].mean() == pytest.approx(2.25, abs=0.05)
    assert draw_repeats(factors, generator).tolist()[0] == 0


def test_no_images() -> None:
    assert repeat_factors([]).shape == (0,)
    assert draw_repeats(np.zeros(0), np.random.default_rng(0)).tolist() == []
