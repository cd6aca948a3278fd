"""Lattices and keys against references written pixel by pixel."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saliency_prompt.models.mask_rcnn.keys import (
    Lattice,
    boundary,
    draw,
    lattice,
    lattice_of_code,
    near,
    sample_keys,
    sample_keys_of_code,
)

SIDE = 12


def blobs(count: int, seed: int = 0) -> Tensor:
    """Soft masks of random rectangles and discs: [count, SIDE, SIDE]."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    masks = torch.zeros(count, SIDE, SIDE)
    for i in range(count):
        cy, cx = (torch.randint(2, SIDE - 2, (2,), generator=generator)).tolist()
        radius = 1.5 + 3 * torch.rand(1, generator=generator).item()
        masks[i] = ((y - cy) ** 2 + (x - cx) ** 2 <= radius**2).float() * 0.9
    return masks


def gradient_edges(mask: Tensor) -> list[tuple[int, int]]:
    """Pixels with a non-zero difference: central inside, one-sided at the border."""
    found = []
    for y in range(SIDE):
        for x in range(SIDE):
            up, down, left, right = max(y - 1, 0), min(y + 1, SIDE - 1), max(x - 1, 0), min(x + 1, SIDE - 1)
            if mask[down, x] != mask[up, x] or mask[y, right] != mask[y, left]:
                found.append((y, x))
    return found


def squared_distances(edges: list[tuple[int, int]]) -> Tensor:
    distances = torch.full((SIDE, SIDE), math.inf)
    for y in range(SIDE):
        for x in range(SIDE):
            for edge in edges:
                distances[y, x] = min(distances[y, x].item(), (y - edge[0]) ** 2 + (x - edge[1]) ** 2)
    return distances


@pytest.mark.parametrize("seed", range(4))
def test_hard_pixels_are_those_within_a_squared_distance_of_2(seed: int) -> None:
    for mask in blobs(3, seed) >= 0.5:
        edges = gradient_edges(mask)
        marked = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        for edge in edges:
            marked[edge] = True
        assert torch.equal(boundary(mask[None])[0], marked)
        assert torch.equal(near(marked[None])[0], squared_distances(edges) <= 2)


def test_boundary_is_one_pixel_inside_and_one_outside() -> None:
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, 2:6, 2:6] = True
    found = boundary(mask)[0]
    assert found[3].tolist() == [False, True, True, False, False, True, True, False]
    assert not found[3:5, 3:5].any()
    assert not boundary(torch.ones(1, 8, 8, dtype=torch.bool)).any()


def test_lattice_is_the_mask_where_known_and_else_the_activation_map() -> None:
    masks, cams = torch.tensor([[[0.5, 0.49]], [[1.0, 1.0]]]), torch.tensor([[[0.2, 0.2]], [[0.9, 0.1]]])
    cells = lattice(masks, cams, torch.tensor([True, False]), 0.1)
    assert cells.front.tolist() == [[[True, False]], [[True, False]]]
    assert cells.back.tolist() == [[[False, True]], [[False, True]]]
    assert cells.sides().tolist() == [True, True]
    strict = lattice_of_code(masks, cams, torch.tensor([False, False]), 0.1)
    assert not strict.front.any()
    assert not strict.back.any()


def test_the_code_asks_the_map_where_a_mask_has_hardly_a_pixel() -> None:
    masks = torch.zeros(1, 3, 3)
    masks[0, 1, 1] = 1
    cams = torch.linspace(0, 1, 9).view(1, 3, 3)
    cells = lattice_of_code(masks, cams, torch.tensor([True]), 0.1)
    assert cells.front[0].nonzero().tolist() == [[2, 2]]
    assert torch.equal(cells.back, masks < 0.5)
    both = lattice_of_code(torch.ones(1, 3, 3), cams, torch.tensor([True]), 0.1)
    assert both.back[0].nonzero().tolist() == [[0, 0]]


@settings(max_examples=40)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=5), st.floats(0.01, 1), st.integers(0, 99))
def test_a_draw_has_its_share_of_each_set_and_nothing_else(sizes: list[int], share: float, seed: int) -> None:
    torch.manual_seed(seed)
    sets = torch.stack([torch.randperm(64) < size for size in sizes]).view(-1, 8, 8)
    drawn = draw(sets, share)
    assert not (drawn & ~sets).any()
    for size, one in zip(sizes, drawn, strict=True):
        assert size * share <= int(one.sum()) + 1e-6
        assert int(one.sum()) < size * share + 1 + 1e-6


def test_a_share_is_not_rounded_up_by_the_binary_of_its_decimals() -> None:
    for size in (10, 20, 30, 70, 190):
        one = (torch.arange(784) < size).view(1, 28, 28)
        assert int(draw(one, 0.3).sum()) == size * 3 // 10
        assert int(draw(one, 0.1).sum()) == size // 10


def test_draws_are_uniform() -> None:
    torch.manual_seed(0)
    one = torch.zeros(2000, 3, 4, dtype=torch.bool)
    one[:, :2] = True
    frequency = draw(one, 0.25).float().mean(0)[:2]
    assert (frequency - 0.25).abs().max() < 0.05


def test_keys_of_the_paper_pixel_by_pixel() -> None:
    torch.manual_seed(1)
    masks, cams = blobs(6, 7), torch.rand(6, SIDE, SIDE)
    known = torch.tensor([True, True, False, True, False, True])
    cells = lattice(masks, cams, known, 0.1)
    keys = sample_keys(cells, masks, known, 1.0, 5)  # all are drawn
    for n in range(6):
        sets = {name: set() for name in ("easy_front", "easy_back", "hard_front", "hard_back")}
        distances = squared_distances(gradient_edges(masks[n] >= 0.5))
        for y in range(SIDE):
            for x in range(SIDE):
                if known[n]:
                    side = "front" if masks[n, y, x] >= 0.5 else "back"
                    sets[f"{'hard' if distances[y, x] <= 2 else 'easy'}_{side}"].add((y, x))
                elif cams[n, y, x] >= 0.9 or cams[n, y, x] <= 0.1:
                    side = "front" if cams[n, y, x] >= 0.9 else "back"
                    sets[f"easy_{side}"].add((y, x))
                    sets[f"hard_{side}"].add((y, x))
        for name, wanted in sets.items():
            assert {tuple(one) for one in getattr(keys, name)[n].nonzero().tolist()} == wanted
        assert bool(keys.kept[n]) == all(len(one) >= 5 for one in sets.values())
    assert keys.kept.any()
    assert not keys.kept.all()


def test_keys_of_the_code_pixel_by_pixel() -> None:
    masks = blobs(5, 3)
    known = torch.ones(5, dtype=torch.bool)
    cells = lattice_of_code(masks, torch.rand(5, SIDE, SIDE), known, 0.1)
    keys = sample_keys_of_code(cells, masks, known, 1.0, 1)
    for n in range(5):
        distances = squared_distances(gradient_edges(masks[n] >= 0.5))
        for y in range(SIDE):
            for x in range(SIDE):
                inside, band = bool(masks[n, y, x] >= 0.5), 0 < distances[y, x] <= 2
                assert keys.hard_front[n, y, x] == (inside and band)
                assert keys.hard_back[n, y, x] == (not inside and band)
                assert keys.easy_front[n, y, x] == (inside and not band)
                assert keys.easy_back[n, y, x] == (not inside and distances[y, x] > 2)


def test_the_paper_draws_before_it_splits_and_the_code_after() -> None:
    masks = blobs(4, 2)
    known = torch.ones(4, dtype=torch.bool)
    cells = lattice(masks, masks, known, 0.1)
    keys = sample_keys(cells, masks, known, 0.3, 1)
    fronts = (keys.easy_front | keys.hard_front).sum((1, 2))
    assert fronts.tolist() == [math.ceil(0.3 * n - 1e-9) for n in cells.front.sum((1, 2)).tolist()]
    whole = sample_keys_of_code(cells, masks, known, 1.0, 1)
    of_code = sample_keys_of_code(cells, masks, known, 0.3, 1)
    for drawn, full in zip(of_code.sets(), whole.sets(), strict=True):
        assert drawn.sum((1, 2)).tolist() == [math.ceil(0.3 * n - 1e-9) for n in full.sum((1, 2)).tolist()]


@pytest.mark.parametrize("sample", [sample_keys, sample_keys_of_code])
def test_regions_with_too_few_pixels_drop_out(sample: object) -> None:
    masks = torch.zeros(4, SIDE, SIDE)
    masks[0, 1:8, 1:8] = 1  # plenty
    masks[1] = 1  # no background
    masks[2, 5:7, 5:7] = 1  # four pixels, all at the boundary
    known = torch.ones(4, dtype=torch.bool)  # the last has no foreground
    cells = Lattice(masks >= 0.5, masks < 0.5)
    keys = sample(cells, masks, known, 0.3, 5)  # type: ignore[operator]
    assert keys.kept.tolist() == [True, False, False, False]


def test_no_regions_are_no_keys() -> None:
    none = torch.zeros(0, SIDE, SIDE)
    cells = lattice(none, none, torch.zeros(0, dtype=torch.bool), 0.1)
    assert len(sample_keys(cells, none, torch.zeros(0, dtype=torch.bool), 0.3, 5).kept) == 0
