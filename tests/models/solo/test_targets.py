"""Target assignment against the rule written cell by cell, on random scenes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saliency_prompt.models.solo.options import Options
from saliency_prompt.models.solo.targets import (
    Cells,
    assign_cells,
    contours,
    find_places,
    shrink,
    shrink_lines,
)

SIZE = (64, 96)


def masks_of(rectangles: list[tuple[int, int, int, int]], size: tuple[int, int] = SIZE) -> tuple[Tensor, Tensor]:
    """Masks and boxes of rectangles (top, left, height, width), cut at the image."""
    masks = torch.zeros(len(rectangles), *size, dtype=torch.uint8)
    boxes = torch.zeros(len(rectangles), 4)
    for i, (top, left, height, width) in enumerate(rectangles):
        masks[i, top : top + height, left : left + width] = 1
        bottom, right = min(top + height, size[0]), min(left + width, size[1])
        boxes[i] = torch.tensor([left, top, right, bottom])
    return masks, boxes


def by_loops(
    masks: Tensor, boxes: Tensor, grid: int, scales: tuple[float, float], center: float, collision: str
) -> tuple[list[int], set[tuple[int, int]]]:
    """Owners of all cells, and (cell, object) pairs: every cell asks every object."""
    owners = [-1] * (grid * grid)
    pairs: set[tuple[int, int]] = set()
    claims: dict[int, list[int]] = {}
    for number in range(len(masks)):
        left, top, right, bottom = boxes[number].tolist()
        scale = math.sqrt(max(right - left, 0) * max(bottom - top, 0))
        ys, xs = np.nonzero(masks[number].numpy())
        if not len(ys) or not scales[0] <= scale <= scales[1]:
            continue
        middle = (ys.mean(), xs.mean())
        half = ((bottom - top) * center / 2, (right - left) * center / 2)
        for row in range(grid):
            for column in range(grid):
                inside = True
                for place, at, reach, extent in zip((row, column), middle, half, SIZE, strict=True):
                    first, last = (math.floor(edge / extent * grid) for edge in (at - reach, at + reach))
                    inside &= first <= place <= last and abs(place - math.floor(at / extent * grid)) <= 1
                if inside:
                    claims.setdefault(row * grid + column, []).append(number)
    for cell, objects in claims.items():
        if collision == "smallest":
            owners[cell] = min(objects, key=lambda one: (int(masks[one].sum()), one))
        else:
            owners[cell] = objects[-1]
        pairs |= {(cell, one) for one in (objects if collision == "all" else [owners[cell]])}
    return owners, pairs


rectangles = st.lists(
    st.tuples(st.integers(0, SIZE[0] - 1), st.integers(0, SIZE[1] - 1), st.integers(0, 64), st.integers(0, 96)),
    max_size=7,
)


@settings(max_examples=150)
@given(
    rectangles,
    st.integers(1, 12),
    st.sampled_from([(0.0, math.inf), (8.0, 40.0), (200.0, 300.0)]),
    st.sampled_from([0.2, 0.5, 1.0]),
    st.sampled_from(["smallest", "last", "all"]),
)
def test_cells_are_those_that_ask_one_by_one(
    boxes_of: list[tuple[int, int, int, int]], grid: int, scales: tuple[float, float], center: float, collision: str
) -> None:
    masks, boxes = masks_of(boxes_of)
    found = assign_cells(find_places(masks, boxes), grid, scales, SIZE, center=center, collision=collision)  # type: ignore[arg-type]
    owners, pairs = by_loops(masks, boxes, grid, scales, center, collision)
    assert found.owners.tolist() == owners
    listed = list(zip(found.cells.tolist(), found.objects.tolist(), strict=True))
    assert len(listed) == len(set(listed))
    assert set(listed) == pairs


def test_the_smaller_object_keeps_a_shared_cell_whatever_the_order() -> None:
    masks, boxes = masks_of([(20, 20, 8, 8), (10, 10, 28, 28)])
    for order in ([0, 1], [1, 0]):
        cells = assign_cells(find_places(masks[order], boxes[order]), 4, (0, math.inf), SIZE)
        assert set(cells.objects.tolist()) == {order.index(0)}
        later = assign_cells(find_places(masks[order], boxes[order]), 4, (0, math.inf), SIZE, collision="last")
        assert set(later.objects.tolist()) == {1}


def assigned(rectangle: tuple[int, int, int, int], options: Options, size: tuple[int, int]) -> list[Cells]:
    places = find_places(*masks_of([rectangle], size))
    return [
        assign_cells(places, grid, scales, size) for grid, scales in zip(options.grids, options.scales, strict=True)
    ]


def test_objects_beyond_all_ranges_go_to_the_last_level_and_specks_to_the_first() -> None:
    options = Options(ranges=((4, 8), (6, 12), (10, 20), (16, 32), (24, 40)))
    big, small = assigned((0, 0, 64, 96), options, SIZE), assigned((5, 5, 1, 1), options, SIZE)
    assert [len(level.cells) > 0 for level in big] == [False, False, False, False, True]
    assert [len(level.cells) > 0 for level in small] == [True, False, False, False, False]


def test_three_thousand_objects_and_grids_finer_than_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    tops, lefts = (torch.randint(0, n, (3000,), generator=generator).tolist() for n in (28, 44))
    masks, boxes = masks_of([(top, left, 4, 4) for top, left in zip(tops, lefts, strict=True)], (32, 48))
    cells = assign_cells(find_places(masks, boxes), 100, (0, math.inf), (32, 48))
    assert len(cells.cells) == len(set(cells.cells.tolist())) > 100
    assert int(cells.objects.max()) > 2000


def test_masks_shrink_as_bilinear_resizing_does() -> None:
    masks = (torch.rand(5, 32, 64, generator=torch.Generator().manual_seed(1)) > 0.5).to(torch.uint8)
    for stride in (4, 8, 16):
        wanted = torch.nn.functional.interpolate(
            masks[None].float(), scale_factor=1 / stride, mode="bilinear", align_corners=False
        )[0]
        assert torch.equal(shrink(masks, stride), (wanted >= 0.5).to(torch.uint8))


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_contours_are_the_pixels_near_an_edge(seed: int) -> None:
    blocks = torch.rand(1, 4, 6, generator=torch.Generator().manual_seed(seed)) > 0.5
    mask = blocks.repeat_interleave(4, 1).repeat_interleave(4, 2).to(torch.uint8)
    found, (_, height, width) = contours(mask)[0], mask.shape

    def around(y: int, x: int) -> list[tuple[int, int]]:
        rows, columns = range(max(y - 1, 0), min(y + 2, height)), range(max(x - 1, 0), min(x + 2, width))
        return [(row, column) for row in rows for column in columns]

    edge = {
        (y, x)
        for y in range(height)
        for x in range(width)
        if mask[0, y, x] and not all(mask[0, row, column] for row, column in around(y, x))
    }
    for y in range(height):
        for x in range(width):
            assert bool(found[y, x]) == any(place in edge for place in around(y, x))


@pytest.mark.parametrize("stride", [4, 8, 16])
def test_shrunk_lines_keep_every_line(stride: int) -> None:
    line = torch.zeros(1, 32, 64, dtype=torch.uint8)
    line[0, :, 17] = 1
    found = shrink_lines(line, stride)
    assert found.sum() == 32 // stride
    assert (found[0, :, 17 // stride] == 1).all()
