"""Crops, their geometry and their pixels, against torchvision and against known pictures."""

import colorsys

import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from saliency_prompt.schemas.training.densecl import AugmentConfig
from saliency_prompt.stages.recipes.densecl.augment import _adjust, _blur, render_views
from saliency_prompt.stages.recipes.densecl.views import (
    UNIFORMS,
    Views,
    draw_views,
    match_accuracy,
    step_generator,
    true_matches,
)

PLAIN = AugmentConfig(size=32, jitter=0, grey=0, blur=0, flip=0)
ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def draw(count: int, config: AugmentConfig = PLAIN, aspect: float = 1.5, seed: int = 0) -> Views:
    return draw_views(step_generator(seed, 0, 1).random((count, UNIFORMS)), np.full(count, aspect), config)


def views(box: list[float], **values: object) -> Views:
    plain = {
        "flip": np.array([False]),
        "jitter": np.array([False]),
        "factors": np.array([[1.0, 1.0, 1.0, 0.0]]),
        "order": np.arange(4)[None],
        "grey": np.array([False]),
        "sigma": np.zeros(1),
    }
    return Views(box=np.array([box]), **{**plain, **values})


def picture(side: int = 48) -> torch.Tensor:
    rng = np.random.default_rng(3)
    return torch.from_numpy(rng.integers(0, 256, (1, side, side, 3), dtype=np.uint8))


def test_crops_have_the_areas_and_shapes_that_were_asked_for() -> None:
    box = draw(4000, aspect=1.5).box
    assert (box[:, :2] >= 0).all()
    assert (box[:, :2] + box[:, 2:] <= 1 + 1e-9).all()
    area, ratio = box[:, 2] * box[:, 3], box[:, 3] * 1.5 / box[:, 2]
    assert area.min() >= 0.2 - 1e-9
    assert 3 / 4 - 1e-9 <= ratio.min() <= ratio.max() <= 4 / 3 + 1e-9


def test_crops_are_distributed_as_torchvisions() -> None:
    torch.manual_seed(0)
    image = torch.zeros(3, 200, 300)
    crop = v2.RandomResizedCrop(32, (0.2, 1))
    params = [crop.make_params([image]) for _ in range(3000)]
    expected = np.array([[p["top"] / 200, p["left"] / 300, p["height"] / 200, p["width"] / 300] for p in params])
    mine = draw(20000).box
    np.testing.assert_allclose(mine.mean(0), expected.mean(0), atol=0.012)
    np.testing.assert_allclose(mine.std(0), expected.std(0), atol=0.012)


def test_a_very_wide_photograph_gets_its_centre() -> None:
    box = draw(50, AugmentConfig(size=32, scale=(0.9, 1.0)), aspect=8.0).box
    assert box[:, 2].min() == 1.0
    np.testing.assert_allclose(box[:, 3] * 8, 4 / 3)
    np.testing.assert_allclose(box[:, 1] * 2 + box[:, 3], 1)


def test_the_same_seed_gives_the_same_views_and_another_step_others() -> None:
    first, again = (step_generator(5, 7, 1).random((3, UNIFORMS)) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, step_generator(5, 8, 1).random((3, UNIFORMS)))


@pytest.mark.parametrize("box", [[0.0, 0.0, 1.0, 1.0], [0.25, 0.125, 0.5, 0.75]])
def test_resampling_is_antialiased_bilinear(box: list[float]) -> None:
    image = picture()
    mine = render_views(image, views(box), 16, ZERO, ONE)
    top, left, height, width = (round(48 * v) for v in box)
    theirs = tv.resized_crop(image.permute(0, 3, 1, 2).float(), top, left, height, width, [16, 16], antialias=True)
    # torchvision cuts before it resizes, so that only the outermost pixels differ, and only for a real crop
    edge = 0 if box[2] == 1 else 1
    inner = (..., slice(edge, 16 - edge), slice(edge, 16 - edge))
    torch.testing.assert_close(mine[inner], theirs[inner], atol=1e-2, rtol=0)


def test_flips_mirror_and_normalisation_is_applied() -> None:
    image = picture(16)
    straight = render_views(image, views([0, 0, 1, 1]), 16, ZERO, ONE)
    mirrored = render_views(image, views([0, 0, 1, 1], flip=np.array([True])), 16, ZERO, ONE)
    torch.testing.assert_close(mirrored, straight.flip(3))
    torch.testing.assert_close(straight, image.permute(0, 3, 1, 2).float(), atol=1e-3, rtol=0)
    scaled = render_views(image, views([0, 0, 1, 1]), 16, (10.0, 20.0, 30.0), (2.0, 4.0, 5.0))
    expected = (straight - torch.tensor([10.0, 20, 30]).view(3, 1, 1)) / torch.tensor([2.0, 4, 5]).view(3, 1, 1)
    torch.testing.assert_close(scaled, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("kind", "factor", "reference"),
    [
        (0, 1.3, tv.adjust_brightness),
        (1, 0.6, tv.adjust_contrast),
        (2, 1.4, tv.adjust_saturation),
        (3, 0.08, tv.adjust_hue),
        (3, -0.1, tv.adjust_hue),
    ],
)
def test_colours_change_as_torchvisions(kind: int, factor: float, reference: object) -> None:
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    mine = _adjust(x.clone(), torch.full((2, 1, 1, 1), factor), kind)
    torch.testing.assert_close(mine, reference(x, factor), atol=2e-3, rtol=0)  # type: ignore[operator]


def test_hue_turns_by_the_colour_circle() -> None:
    x = torch.tensor([0.8, 0.3, 0.2]).view(1, 3, 1, 1)
    h, s, v = colorsys.rgb_to_hsv(0.8, 0.3, 0.2)
    expected = torch.tensor(colorsys.hsv_to_rgb((h + 0.3) % 1, s, v)).view(1, 3, 1, 1)
    torch.testing.assert_close(_adjust(x, torch.full((1, 1, 1, 1), 0.3), 3), expected)


def test_blur_is_gaussian_with_its_own_width_per_image() -> None:
    x = torch.rand(2, 3, 33, 33, generator=torch.Generator().manual_seed(0))
    mine = _blur(x, torch.tensor([0.8, 1.6]))
    for i, sigma in enumerate((0.8, 1.6)):
        theirs = tv.gaussian_blur(x[i], [19, 19], [sigma, sigma])
        torch.testing.assert_close(mine[i, :, 9:-9, 9:-9], theirs[:, 9:-9, 9:-9], atol=1e-4, rtol=0)
    torch.testing.assert_close(_blur(torch.ones(1, 3, 9, 9), torch.tensor([2.0])), torch.ones(1, 3, 9, 9))


def test_each_image_of_a_batch_has_its_own_numbers() -> None:
    image = picture().expand(16, -1, -1, -1)
    config = AugmentConfig(size=32)
    together = render_views(image, draw(16, config), 32, ZERO, ONE)
    assert len({round(float(v), 3) for v in together.mean((1, 2, 3))}) == 16
    uniform = step_generator(0, 0, 1).random((16, UNIFORMS))
    alone = render_views(image[:1], draw_views(uniform[5:6], np.full(1, 1.5), config), 32, ZERO, ONE)
    torch.testing.assert_close(together[5:6], alone, atol=1e-3, rtol=1e-4)


def test_true_matches_of_known_crops() -> None:
    whole, left = views([0, 0, 1, 1]), views([0, 0, 1, 0.5])
    assert true_matches(whole, whole, 3).tolist() == [list(range(9))]
    # the right half of the whole is outside; column 0 of 2 lies in column 0 or 1 of the left half
    assert true_matches(whole, left, 2).tolist() == [[1, -1, 3, -1]]
    mirrored = views([0, 0, 1, 1], flip=np.array([True]))
    assert true_matches(whole, mirrored, 2).tolist() == [[1, 0, 3, 2]]
    assert true_matches(mirrored, whole, 2).tolist() == [[1, 0, 3, 2]]
    assert true_matches(mirrored, mirrored, 2).tolist() == [[0, 1, 2, 3]]


def test_true_matches_follow_the_pixels() -> None:
    """A marker at a key cell's centre is seen in the query cell that geometry says."""
    config = AugmentConfig(size=32, jitter=0, grey=0, blur=0, flip=0.5)
    first, second = draw(40, config, aspect=1.0, seed=1), draw(40, config, aspect=1.0, seed=2)
    ramp = torch.arange(256, dtype=torch.uint8)
    image = torch.stack([ramp[:, None].expand(256, 256), ramp[None].expand(256, 256), ramp.new_zeros(256, 256)], -1)
    shown = [render_views(image.expand(40, -1, -1, -1), v, 32, ZERO, ONE)[:, :2, 4::8, 4::8] for v in (first, second)]
    cells = [s.flatten(2) for s in shown]  # [40, 2, 16]: where each cell's centre is in the photograph
    truth = torch.from_numpy(true_matches(first, second, 4))
    distance = (cells[0][..., None] - cells[1][:, :, None, :]).abs()
    for n, i in (truth >= 0).nonzero().tolist():
        cell = np.array([second.box[n, 2], second.box[n, 3]]) * 256 / 4  # height and width of a key cell in pixels
        assert (distance[n, :, i, truth[n, i]].numpy() <= cell / 2 + 4).all()
    assert (truth >= 0).float().mean() > 0.3


def test_accuracy_falls_back_to_chance_for_random_features() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(-1, 49, (200, 49), generator=generator)
    match = torch.randint(0, 49, (200, 49), generator=generator)
    assert match_accuracy(match, truth).item() == pytest.approx(1 / 49, abs=0.006)
    assert match_accuracy(truth.clamp_min(0), truth).item() == 1.0
