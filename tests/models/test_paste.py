"""Pasting against a slow reference."""

import torch

from saliency_prompt.models.paste import paste_masks


def slow_value(mask: torch.Tensor, y: float, x: float) -> float:
    """Bilinear, zero outside, at (y, x) in cells whose centres are at halves."""
    y, x = y - 0.5, x - 0.5
    total = 0.0
    for i in (int(y // 1), int(y // 1) + 1):
        for j in (int(x // 1), int(x // 1) + 1):
            if 0 <= i < mask.shape[0] and 0 <= j < mask.shape[1]:
                total += max(0, 1 - abs(y - i)) * max(0, 1 - abs(x - j)) * float(mask[i, j])
    return total


def test_a_mask_lies_in_its_box() -> None:
    masks = torch.rand(2, 5, 4, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[2.5, 1, 8, 9.5], [-3.0, -2, 5, 20]])
    pasted = paste_masks(masks, boxes, (10, 12))
    for n, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        for row in range(10):
            for column in range(12):
                y, x = (row + 0.5 - y1) / (y2 - y1) * 5, (column + 0.5 - x1) / (x2 - x1) * 4
                assert abs(float(pasted[n, row, column]) - slow_value(masks[n], y, x)) < 1e-5


def test_a_box_without_extent_holds_nothing() -> None:
    pasted = paste_masks(torch.ones(1, 3, 3), torch.tensor([[4.0, 4, 4, 4]]), (8, 8))
    assert pasted.sum() == 0
