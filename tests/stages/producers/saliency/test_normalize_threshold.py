import torch

from saliency_prompt.schemas.labels.saliency import SaliencyConfig
from saliency_prompt.stages.producers.saliency.normalize import normalize_maps
from saliency_prompt.stages.producers.saliency.saliency import flatten_cells, seed_layout, similarity_maps
from saliency_prompt.stages.producers.saliency.threshold import threshold_maps


def test_min_max_cancels_the_length_of_the_seed_but_not_of_the_keys() -> None:
    generator = torch.Generator().manual_seed(1)
    cells, seed = torch.rand(30, 8, generator=generator), torch.rand(8, generator=generator)
    once = normalize_maps((cells @ seed).view(1, 1, -1), "map", 1e-6)
    torch.testing.assert_close(once, normalize_maps((cells @ (7 * seed)).view(1, 1, -1), "map", 1e-6))
    unit_keys = normalize_maps((cells / cells.norm(dim=1, keepdim=True) @ seed).view(1, 1, -1), "map", 1e-6)
    assert not torch.allclose(once, unit_keys, atol=1e-2)


def test_map_scope_fills_zero_to_one_and_image_scope_does_so_once_per_image() -> None:
    maps = torch.rand(2, 5, 12, generator=torch.Generator().manual_seed(0))
    each = normalize_maps(maps, "map", 1e-6)
    assert torch.equal(each.amin(2), torch.zeros(2, 5))
    assert torch.equal(each.amax(2), torch.ones(2, 5))
    whole = normalize_maps(maps, "image", 1e-6)
    assert torch.equal(whole.amin((1, 2)), torch.zeros(2))
    assert torch.equal(whole.amax((1, 2)), torch.ones(2))
    assert (whole.amax(2) < 1).sum() == 8


def test_a_constant_map_gives_no_mask() -> None:
    maps = normalize_maps(torch.full((1, 3, 20), 0.8), "map", 1e-6)
    assert torch.isfinite(maps).all()
    found = threshold_maps(maps, 0.5, 2)
    assert not found.maskness.any()


def test_constant_features_give_no_mask() -> None:
    layout = seed_layout(5, 6, SaliencyConfig())
    sim = similarity_maps(flatten_cells(torch.ones(1, 8, 5, 6)), layout, "cosine")
    assert not threshold_maps(normalize_maps(sim, "map", 1e-6), 0.5, 2).maskness.any()


def test_maskness_is_the_mean_inside_and_the_threshold_belongs_to_the_mask() -> None:
    maps = torch.tensor([[[0.5, 0.9, 0.1, 0.7], [0.6, 0.0, 0.2, 0.4]]])
    found = threshold_maps(maps, 0.5, 2)
    assert found.masks[0, 0].tolist() == [1, 1, 0, 1]
    torch.testing.assert_close(found.maskness[0], torch.tensor([0.7, 0.0]))  # one cell is no mask
    torch.testing.assert_close(threshold_maps(maps, 0.5, 1).maskness[0], torch.tensor([0.7, 0.6]))
