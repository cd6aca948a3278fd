"""Masks that are made cell by cell against the layers run in full, and the pieces heads are built from."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from saliency_prompt.models.solo.dynamic import DynamicHead
from saliency_prompt.models.solo.head import DecoupledHead, Head, SoloHead, align, level_maps
from saliency_prompt.models.solo.inference import peaks
from saliency_prompt.models.solo.layers import Tower, coordinates, with_coordinates
from saliency_prompt.models.solo.model import HEADS, groups
from saliency_prompt.models.solo.options import Options

SMALL = {"channels": 8, "width": 16, "depth": 2, "kernel_channels": 6, "feature_width": 8, "grids": (6, 5, 4, 3, 2)}


def pyramid() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 8, 64 >> i, 96 >> i, generator=generator) for i in range(5)]


def head_of(kind: str, **changes: object) -> Head:
    torch.manual_seed(0)
    head = HEADS[kind](3, Options(**{"head": kind, **SMALL, **changes}))  # type: ignore[arg-type]
    for parameter in head.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return head


def test_solos_channels_are_its_convolutions() -> None:
    head = head_of("solo")
    assert isinstance(head, SoloHead)
    for number, level in enumerate(head(pyramid())):
        whole = head.masks[number](level.maps[0])
        assert whole.shape[1] == head.options.grids[number] ** 2
        cells = torch.tensor([3, 0, 2, 3])
        torch.testing.assert_close(head.logits(level, number, 1, cells), whole[1, cells])


@pytest.mark.parametrize("shared", [False, True])
def test_decoupled_masks_are_products_of_a_column_and_a_row(shared: bool) -> None:
    head = head_of("decoupled", shared_tower=shared)
    assert isinstance(head, DecoupledHead)
    for number, level in enumerate(head(pyramid())):
        grid = head.options.grids[number]
        x, y = head.columns[number](level.maps[0])[0], head.rows[number](level.maps[-1])[0]
        cells = torch.tensor([grid, 1, grid * grid - 1])
        for cell, found in zip(cells.tolist(), head.logits(level, number, 0, cells), strict=True):
            torch.testing.assert_close(found.sigmoid(), x[cell % grid].sigmoid() * y[cell // grid].sigmoid())


def test_decoupled_logits_stay_finite_far_from_zero() -> None:
    head = head_of("decoupled")
    level = head(pyramid())[0]
    for bias in (-200.0, 200.0):
        for conv in (*head.columns, *head.rows):  # type: ignore[union-attr, misc]
            torch.nn.init.constant_(conv.bias, bias)
        logits = head.logits(level, 0, 0, torch.tensor([0, 7]))
        assert logits.isfinite().all()
        assert ((logits > 100) if bias > 0 else (logits < -300)).all()


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("feature", ["unified", "separate"])
def test_dynamic_masks_are_the_feature_convolved_with_the_cells_kernel(size: int, feature: str) -> None:
    head = head_of("dynamic", kernel_size=size, mask_feature=feature)
    levels = head(pyramid())
    for number, level in enumerate(levels):
        assert level.kernels is not None
        cell = 3
        row, column = divmod(cell, head.options.grids[number])
        kernel = level.kernels[1, :, row, column].view(6, size, size)
        found = head.logits(level, number, 1, torch.tensor([cell]))[0]
        padded = F.pad(level.maps[0][1], (size // 2,) * 4)
        for y, x in ((0, 0), (3, 5), (level.size[0] - 1, level.size[1] - 1)):
            torch.testing.assert_close(found[y, x], (padded[:, y : y + size, x : x + size] * kernel).sum())
    strides = [64 // level.size[0] * 4 for level in levels]
    assert strides == ([4] * 5 if feature == "unified" else [4, 4, 8, 16, 16])


def test_coordinates_of_the_paper_reach_the_grids_border_and_the_codes_do_not() -> None:
    seen: dict[str, Tensor] = {}
    for order in ("paper", "code"):
        head = head_of("dynamic", coord_order=order)
        assert isinstance(head, DynamicHead)
        head.kernel_tower.register_forward_pre_hook(lambda _, args, order=order: seen.update({order: args[0]}))
        head(pyramid())
    grid = 2
    assert seen["paper"].shape == seen["code"].shape == (2, 10, grid, grid)
    assert seen["paper"][0, 8, 0].tolist() == [-1, 1]
    assert seen["paper"][0, 9, :, 0].tolist() == [-1, 1]
    width = 96 >> 3
    wanted = 1 - (width / grid - 1) / (width - 1)
    assert seen["code"][0, 8, 0].tolist() == pytest.approx([-wanted, wanted])
    assert torch.equal(seen["paper"][:, :8], seen["code"][:, :8])


def test_coordinates_are_x_then_y() -> None:
    both = coordinates(torch.zeros(2, 4, 3, 5), "xy")
    assert both.shape == (2, 2, 3, 5)
    assert both[1, 0, 2].tolist() == [-1, -0.5, 0, 0.5, 1]
    assert both[1, 1, :, 4].tolist() == [-1, 0, 1]
    assert with_coordinates(both, "") is both


def test_layers_that_see_coordinates_are_as_many_as_asked() -> None:
    for number in range(4):
        tower = Tower(8, 16, 3, axes="xy", coord_layers=number)
        inputs = [layer.conv.weight.shape[1] for layer in tower]
        assert inputs == [width + 2 * (place < number) for place, width in enumerate((8, 16, 16))]


def test_alignments_agree_on_a_constant_and_take_what_they_say() -> None:
    flat = torch.full((1, 1, 6, 9), 3.0)
    for how in ("interpolate", "adaptive_max", "region"):
        for grid in (2, 3, 12):
            assert torch.equal(align(flat, grid, how), torch.full((1, 1, grid, grid), 3.0))
    spot = torch.zeros(1, 1, 8, 8)
    spot[0, 0, 0, 0] = 1
    assert align(spot, 2, "adaptive_max")[0, 0].tolist() == [[1, 0], [0, 0]]
    assert align(spot, 2, "interpolate").sum() == 0
    assert 0 < align(spot, 2, "region")[0, 0, 0, 0] < 0.2


def test_p2_and_p6_are_brought_to_their_neighbours() -> None:
    sizes = [tuple(one.shape[2:]) for one in level_maps(pyramid())]
    assert sizes == [(32, 48), (32, 48), (16, 24), (8, 12), (8, 12)]
    one = pyramid()[:1]
    assert level_maps(one)[0] is one[0]


def test_a_peak_is_the_largest_of_its_two_by_two() -> None:
    scores = torch.tensor([[[0.5, 0.4, 0.9], [0.6, 0.3, 0.2], [0.1, 0.3, 0.2]]])
    assert peaks(scores)[0].tolist() == [pytest.approx(row) for row in ([0.5, 0, 0.9], [0.6, 0, 0], [0, 0, 0])]


def test_images_of_one_padded_size_go_together() -> None:
    assert groups([(60, 90), (33, 64), (64, 65), (1, 1)], 32) == {(64, 96): [0, 2], (64, 64): [1], (32, 32): [3]}
