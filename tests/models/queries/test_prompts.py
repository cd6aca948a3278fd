"""Prompt pooling and assignment against slow references, and the mistakes that others made."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from saliency_prompt.models.queries.prompts import (
    ASSIGNERS,
    box_levels,
    choose_levels,
    pad_boxes,
    pool_masked,
    pool_prompts,
    prompt_ratio,
    prompt_shift,
)

STRIDE = 32


def slow_pool(map_CHW: Tensor, box: list[float]) -> Tensor:
    """A box takes every cell that it touches, at least one; the plain mean of them."""
    height, width = map_CHW.shape[1:]
    x1 = min(max(math.floor(box[0] / STRIDE), 0), width - 1)
    y1 = min(max(math.floor(box[1] / STRIDE), 0), height - 1)
    x2 = max(min(math.ceil(box[2] / STRIDE), width), x1 + 1)
    y2 = max(min(math.ceil(box[3] / STRIDE), height), y1 + 1)
    cells = [map_CHW[:, y, x] for y in range(y1, y2) for x in range(x1, x2)]
    return torch.stack(cells).mean(0)


@given(st.integers(0, 1000))
def test_pooling_is_the_mean_of_the_cells_a_box_touches(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn((2, 5, 6, 7), generator=generator)
    corners = torch.rand((2, 4, 2, 2), generator=generator) * torch.tensor([7 * STRIDE, 6 * STRIDE])
    boxes = torch.cat([corners.amin(2), corners.amax(2)], -1)
    pooled = pool_prompts(maps, boxes, STRIDE)
    for b in range(2):
        for i in range(4):
            torch.testing.assert_close(pooled[b, i], slow_pool(maps[b], boxes[b, i].tolist()), atol=1e-5, rtol=1e-5)


def test_boxes_at_the_edge_and_without_extent_take_a_cell() -> None:
    maps = torch.arange(12.0).view(1, 1, 3, 4)
    boxes = torch.tensor([[[128.0, 96, 128, 96], [0, 0, 0, 0], [-50, -50, 500, 500]]])
    assert pool_prompts(maps, boxes, STRIDE)[0, :, 0].tolist() == [11, 0, 5.5]


def test_mirroring_an_image_mirrors_its_prompts() -> None:
    maps = torch.randn(1, 4, 5, 6)
    box = torch.tensor([[[40.0, 20, 100, 90]]])
    mirrored = torch.tensor([[[6 * STRIDE - 100.0, 20, 6 * STRIDE - 40, 90]]])
    torch.testing.assert_close(pool_prompts(maps, box, STRIDE), pool_prompts(maps.flip(3), mirrored, STRIDE))


def test_each_image_gets_its_own_prompts() -> None:
    """Fourteen of twenty-one published copies of this function took prompts of the first image for the second."""
    boxes, valid = pad_boxes([torch.rand(2, 4), torch.rand(3, 4)])
    assert valid.tolist() == [[True, True, False], [True, True, True]]
    prompts = torch.stack([torch.full((3, 4), 1.0), torch.full((3, 4), 2.0)])
    for name, assigner in ASSIGNERS.items():
        shift = prompt_shift(assigner, torch.randn(2, 20, 4), prompts, valid, dropout=0.0)
        assert shift[0].unique().tolist() == [1.0], name
        assert shift[1].unique().tolist() == [2.0], name
    assert boxes.shape == (2, 3, 4)


def test_cosine_is_the_best_prompt_of_each_query() -> None:
    queries, prompts = torch.randn(3, 9, 8), torch.randn(3, 5, 8)
    valid = torch.tensor([[True] * 5, [True] * 2 + [False] * 3, [True] + [False] * 4])
    index = ASSIGNERS["cosine"](queries, prompts, valid)
    for b in range(3):
        real = int(valid[b].sum())
        for n in range(9):
            cosines = [float(F.cosine_similarity(queries[b, n], prompts[b, i], dim=0)) for i in range(real)]
            assert int(index[b, n]) == max(range(real), key=cosines.__getitem__)


@given(st.integers(1, 40), st.integers(1, 60))
def test_sequential_serves_all_in_order_and_random_only_moves_them(prompts: int, queries: int) -> None:
    valid = torch.ones(1, prompts, dtype=torch.bool)
    arguments = (torch.randn(1, queries, 4), torch.randn(1, prompts, 4), valid)
    order = ASSIGNERS["sequential"](*arguments)[0]
    assert order.tolist() == [n * prompts // queries for n in range(queries)]
    drawn = ASSIGNERS["random"](*arguments)[0]
    assert sorted(drawn.tolist()) == order.tolist()


def test_no_prompt_and_dropped_prompts_change_nothing() -> None:
    boxes, valid = pad_boxes([torch.zeros(0, 4)])
    prompts = pool_prompts(torch.randn(1, 4, 5, 5), boxes, STRIDE)
    for assigner in ASSIGNERS.values():
        assert not prompt_shift(assigner, torch.randn(1, 7, 4), prompts, valid, 0.0).any()
    full = torch.randn(1, 3, 4), torch.ones(1, 3, dtype=torch.bool)
    assert not prompt_shift(ASSIGNERS["cosine"], torch.randn(1, 7, 4), *full, dropout=1.0).any()


def test_dropout_takes_whole_prompts_at_its_rate() -> None:
    torch.manual_seed(0)
    prompts, valid = torch.ones(4, 3, 2), torch.ones(4, 3, dtype=torch.bool)
    shift = prompt_shift(ASSIGNERS["cosine"], torch.randn(4, 2000, 2), prompts, valid, dropout=0.1)
    assert set(shift.sum(2).flatten().tolist()) == {0.0, 2.0}
    assert float((shift.sum(2) == 0).float().mean()) == pytest.approx(0.1, abs=0.02)


def test_prompts_send_no_gradient() -> None:
    maps = torch.randn(1, 4, 5, 5, requires_grad=True)
    boxes, valid = pad_boxes([torch.tensor([[0.0, 0, 90, 90]])])
    queries = torch.randn(1, 6, 4, requires_grad=True)
    shift = prompt_shift(ASSIGNERS["cosine"], queries, pool_prompts(maps, boxes, STRIDE), valid, 0.0)
    assert not shift.requires_grad


def test_the_rule_of_the_papers_code_rounds_all_corners_down() -> None:
    maps = torch.arange(20.0).view(1, 1, 4, 5)
    boxes = torch.tensor([[[33.0, 0, 95, 63], [40, 40, 50, 50], [130, 100, 159, 127]]])
    # columns 1..1 and row 0; without extent two cells each way; two that overrun the map, cut
    wanted = [1.0, (6 + 7 + 11 + 12) / 4, 19.0]
    assert pool_prompts(maps, boxes, STRIDE, "floor")[0, :, 0].tolist() == wanted


@given(st.integers(0, 1000))
def test_pooling_under_masks_weighs_cells_by_what_is_covered(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn((2, 3, 2, 3), generator=generator)
    masks = [(torch.rand((n, 64, 96), generator=generator) > 0.7).to(torch.uint8) for n in (2, 0)]
    masks[0][0, :, 40:] = 0
    pooled = pool_masked(maps, masks, STRIDE)
    assert pooled.shape == (2, 2, 3)
    big = maps.repeat_interleave(STRIDE, 2).repeat_interleave(STRIDE, 3)
    for i in range(2):
        torch.testing.assert_close(pooled[0, i], big[0][:, masks[0][i].bool()].mean(1), atol=1e-5, rtol=1e-4)
    assert not pooled[1].any()


def test_a_mask_of_one_pixel_has_a_prompt() -> None:
    mask = torch.zeros(1, 64, 96, dtype=torch.uint8)
    mask[0, 63, 95] = 1
    maps = torch.randn(1, 4, 2, 3)
    torch.testing.assert_close(pool_masked(maps, [mask], STRIDE)[0, 0], maps[0, :, 1, 2])


def test_boxes_are_read_from_the_map_of_their_size() -> None:
    sides = torch.tensor([1.0, 111, 112, 223, 224, 447, 448, 2000])
    boxes = torch.stack([torch.zeros(8), torch.zeros(8), sides, sides], 1)[None]
    assert box_levels(boxes, [4, 8, 16, 32])[0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert box_levels(boxes, [8, 16, 32])[0].tolist() == [0, 0, 0, 0, 1, 1, 2, 2]
    pooled = [torch.full((1, 8, 2), float(level)) for level in range(4)]
    chosen = choose_levels(pooled, box_levels(boxes, [4, 8, 16, 32]))
    assert chosen[0, :, 1].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_prompts_as_long_as_their_queries() -> None:
    queries, prompts = torch.randn(2, 7, 4) * 100, torch.randn(2, 3, 4)
    valid = torch.tensor([[True, True, False], [False] * 3])
    plain = prompt_shift(ASSIGNERS["cosine"], queries, prompts, valid, 0.0)
    scaled = prompt_shift(ASSIGNERS["cosine"], queries, prompts, valid, 0.0, queries)
    torch.testing.assert_close(scaled[0].norm(dim=1), queries[0].norm(dim=1))
    torch.testing.assert_close(F.normalize(scaled[0], dim=1), F.normalize(plain[0], dim=1))
    assert not scaled[1].any()
    assert float(prompt_ratio(scaled, queries)) == pytest.approx(1, abs=1e-5)


def test_the_ratio_is_a_median_over_queries_with_a_prompt() -> None:
    queries = torch.ones(1, 4, 1) * 10
    shift = torch.tensor([[[0.0], [1.0], [2.0], [9.0]]])
    assert float(prompt_ratio(shift, queries)) == pytest.approx(0.2)
    assert float(prompt_ratio(torch.zeros(1, 4, 1), queries)) == 0
