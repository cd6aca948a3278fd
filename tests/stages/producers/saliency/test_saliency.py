import numpy as np
import pytest
import torch
import torch.nn.functional as F

from saliency_prompt.schemas.labels.saliency import SaliencyConfig
from saliency_prompt.stages.producers.saliency.saliency import (
    flatten_cells,
    sample_seeds,
    seed_layout,
    seed_positions,
    seed_weights,
    similarity_maps,
)

PYRAMID = SaliencyConfig()


def features(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).relu()


@pytest.mark.parametrize(
    ("grid", "per_scale"),
    [
        ((25, 34), (850, 204, 48)),
        ((25, 38), (950, 228, 54)),
        ((25, 42), (1050, 252, 60)),
        ((25, 25), (625, 144, 36)),
    ],
)
def test_seed_counts_of_the_pyramid(grid: tuple[int, int], per_scale: tuple[int, ...]) -> None:
    layout = seed_layout(*grid, PYRAMID)
    assert tuple(h * w for h, w in layout.shapes) == per_scale
    assert layout.num_seeds == sum(per_scale) == len(seed_positions(layout))


def test_a_scale_without_a_cell_is_left_out() -> None:
    layout = seed_layout(2, 3, PYRAMID)
    assert layout.shapes == ((2, 3), (1, 1))
    assert seed_positions(layout)[-1].tolist() == [1, 0, 0]


def test_half_scale_is_the_mean_of_two_by_two() -> None:
    maps = features(1, 3, 25, 34)
    pooled = sample_seeds(maps, seed_layout(25, 34, SaliencyConfig(scales=(0.5,))))
    torch.testing.assert_close(pooled[0].T.reshape(3, 12, 17), F.avg_pool2d(maps, 2)[0])


def test_quarter_scale_is_the_inner_two_by_two_of_each_block() -> None:
    layout = seed_layout(8, 8, SaliencyConfig(scales=(0.25,)))
    arange = torch.arange(64.0).view(1, 1, 8, 8)
    assert sample_seeds(arange, layout).flatten().tolist() == [13.5, 17.5, 45.5, 49.5]
    maps = features(1, 1, 8, 8)
    inner = F.avg_pool2d(maps[:, :, 1:-1, 1:-1], 2, stride=4)
    torch.testing.assert_close(sample_seeds(maps, layout).view(2, 2), inner[0, 0])
    assert not torch.allclose(sample_seeds(maps, layout).view(2, 2), F.avg_pool2d(maps, 4)[0, 0])


def test_grid_seeding_is_adaptive_average_pooling() -> None:
    maps = features(2, 5, 7, 9)
    config = SaliencyConfig(seeding="grid")
    layout = seed_layout(7, 9, config)
    assert layout.shapes == ((4, 5),)  # half of the map, rounded up
    expected = F.adaptive_avg_pool2d(maps, (4, 5)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(sample_seeds(maps, layout), expected)


@pytest.mark.parametrize("config", [PYRAMID, SaliencyConfig(seeding="grid"), SaliencyConfig(scales=(0.5, 0.3))])
def test_seed_weights_are_the_pooling_as_a_matrix(config: SaliencyConfig) -> None:
    maps = features(1, 4, 9, 13)
    layout = seed_layout(9, 13, config)
    weights = seed_weights(layout, maps.device)
    torch.testing.assert_close(weights @ flatten_cells(maps)[0], sample_seeds(maps, layout)[0])
    torch.testing.assert_close(weights.sum(1), torch.ones(layout.num_seeds))


@pytest.mark.parametrize("config", [PYRAMID, SaliencyConfig(seeding="grid")])
def test_cosine_maps_agree_with_a_loop_over_seeds(config: SaliencyConfig) -> None:
    maps = features(2, 16, 6, 7)
    layout = seed_layout(6, 7, config)
    found = similarity_maps(flatten_cells(maps), layout, "cosine")
    for b in range(2):
        cells = maps[b].flatten(1).T.double().numpy()
        seeds = sample_seeds(maps[b : b + 1], layout)[0].double().numpy()
        for n, seed in enumerate(seeds):
            expected = cells @ seed / np.linalg.norm(cells, axis=1) / np.linalg.norm(seed)
            np.testing.assert_allclose(found[b, n].numpy(), expected, atol=1e-5)


def test_dot_maps_are_convolutions_with_the_seeds() -> None:
    maps = features(1, 16, 6, 7)
    layout = seed_layout(6, 7, PYRAMID)
    seeds = sample_seeds(maps, layout)[0]
    expected = F.conv2d(maps, seeds[:, :, None, None]).flatten(2)
    torch.testing.assert_close(similarity_maps(flatten_cells(maps), layout, "dot"), expected, rtol=1e-4, atol=1e-4)


def test_bf16_products_of_bf16_features_are_those_of_fp32() -> None:
    maps = features(1, 256, 10, 12).bfloat16()
    layout = seed_layout(10, 12, PYRAMID)
    cells = flatten_cells(maps)
    fast = similarity_maps(cells, layout, "cosine", bf16_valued=True)
    torch.testing.assert_close(fast, similarity_maps(cells, layout, "cosine"), rtol=0, atol=5e-6)


def test_a_zero_vector_is_similar_to_nothing() -> None:
    maps = features(1, 8, 4, 4)
    maps[0, :, 1, 2] = 0
    found = similarity_maps(flatten_cells(maps), seed_layout(4, 4, PYRAMID), "cosine")
    assert torch.isfinite(found).all()
    assert not found[0, 6].any()
    assert not found[0, :, 6].any()
