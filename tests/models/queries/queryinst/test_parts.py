"""Pieces of QueryInst against slow references."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saliency_prompt.models.backbones.registry import build_backbone
from saliency_prompt.models.detector import Targets
from saliency_prompt.models.queries.queryinst.criterion import Weights, mask_loss, mask_targets, match_cost
from saliency_prompt.models.queries.queryinst.model import QueryInst
from saliency_prompt.models.queries.queryinst.regions import decode_boxes, finite_boxes, roi_features, roi_levels
from saliency_prompt.models.queries.queryinst.stage import DynamicConv


@given(st.floats(1, 2000), st.floats(1, 2000))
def test_levels_are_by_size(width: float, height: float) -> None:
    boxes = torch.tensor([[10.0, 20, 10 + width, 20 + height]])
    sides = boxes[0, 2:] - boxes[0, :2]
    exact = math.log2(float(sides.prod().sqrt()) / 56 + 1e-6)
    if abs(exact - round(exact)) > 1e-4:
        assert roi_levels(boxes).item() == min(max(math.floor(exact), 0), 3)


def test_regions_come_from_their_own_image_and_level() -> None:
    pyramid = {
        name: torch.arange(2.0).view(2, 1, 1, 1).expand(2, 1, 512 // stride, 512 // stride) * 10 + level
        for level, (name, stride) in enumerate({"p2": 4, "p3": 8, "p4": 16, "p5": 32}.items())
    }
    boxes = torch.tensor([[100.0, 100, 100 + side, 100 + side] for side in (40, 130, 250, 300, 600)])
    boxes[-1] -= 90
    found = roi_features(pyramid, torch.tensor([0, 1, 1, 0, 1]), boxes, 3)
    assert found.amax((1, 2, 3)).tolist() == [0, 11, 12, 2, 13]
    assert found[:4].amin((1, 2, 3)).tolist() == [0, 11, 12, 2]


def test_boxes_that_are_no_numbers_read_something() -> None:
    boxes = torch.tensor([[float("nan"), 0, 1, 1], [-float("inf"), 0, float("inf"), 1e30]])
    pyramid = {f"p{level}": torch.randn(1, 2, 64 >> level, 64 >> level) for level in range(2, 6)}
    found = roi_features(pyramid, torch.zeros(2, dtype=torch.int64), boxes, 7)
    assert torch.isfinite(found).all()
    assert torch.isfinite(finite_boxes(boxes)).all()
    crops = mask_targets(torch.ones(2, 64, 64, dtype=torch.uint8), boxes, 28)
    assert crops.shape == (2, 28, 28)


def test_deltas_move_boxes() -> None:
    boxes = torch.tensor([[[10.0, 20, 30, 60]]])
    moved = decode_boxes(boxes, torch.tensor([[[0.2, -0.1, math.log(2), 0.0]]]))
    # centre (20, 40) + (0.5 * 0.2 * 20, -0.5 * 0.1 * 40); twice as wide
    torch.testing.assert_close(moved, torch.tensor([[[2.0, 18, 42, 58]]]))
    assert torch.equal(decode_boxes(boxes, torch.zeros(1, 1, 4)), boxes)
    huge = decode_boxes(boxes, torch.full((1, 1, 4), 99.0))
    assert float(huge[0, 0, 2] - huge[0, 0, 0]) == pytest.approx(20 * 1000 / 16, rel=1e-4)


def test_match_cost_is_the_formula() -> None:
    classes = torch.randn(3, 2)
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 5, 20, 30], [40, 0, 60, 20]])
    target = Targets(torch.zeros(1, 40, 80), torch.tensor([1]), torch.tensor([[4.0, 6, 24, 26]]), torch.ones(1))
    found = match_cost(classes, boxes, torch.tensor([[80.0, 40, 80, 40]]), target, Weights(2.0, 5.0, 3.0))
    for n, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        q = float(classes[n, 1].sigmoid())
        focal = -0.25 * (1 - q) ** 2 * math.log(q) + 0.75 * q**2 * math.log(1 - q)
        l1 = (abs(x1 - 4) + abs(x2 - 24)) / 80 + (abs(y1 - 6) + abs(y2 - 26)) / 40
        inter = max(0, min(x2, 24) - max(x1, 4)) * max(0, min(y2, 26) - max(y1, 6))
        union = (x2 - x1) * (y2 - y1) + 400 - inter
        hull = (max(x2, 24) - min(x1, 4)) * (max(y2, 26) - min(y1, 6))
        giou = inter / union - (hull - union) / hull
        assert float(found[n, 0]) == pytest.approx(2 * focal + 5 * l1 - 3 * giou, rel=1e-4, abs=1e-5)


def test_targets_are_what_lies_in_the_box() -> None:
    mask = torch.zeros(1, 64, 64, dtype=torch.uint8)
    mask[0, 8:36, 4:32] = 1
    whole = mask_targets(mask, torch.tensor([[4.0, 8, 32, 36]]), 28)
    assert whole.min() == 1
    left = mask_targets(mask, torch.tensor([[18.0, 8, 46, 36]]), 28)[0]  # its right half lies beside the object
    assert left[:, :14].min() == 1
    assert left[:, 14:].max() == 0


def test_only_the_mask_of_the_own_class_counts() -> None:
    logits = torch.zeros(1, 3, 4, 4)
    logits[0, 1] = 30
    targets = torch.ones(1, 4, 4)
    one = torch.tensor(1.0)
    assert float(mask_loss(logits, targets, torch.tensor([1]), one)) == pytest.approx(0, abs=1e-5)
    assert float(mask_loss(logits, targets, torch.tensor([0]), one)) == pytest.approx(1 - 2 * 8 / (4 + 16), abs=1e-4)


def test_a_query_makes_its_own_convolution() -> None:
    module = DynamicConv(8, 2)
    queries, regions = torch.randn(2, 8), torch.randn(2, 5, 8)
    together = module(queries, regions)
    for r in range(2):
        weights = module.weights(queries[r])
        x = module.norm_in(regions[r] @ weights[:16].view(8, 2)).relu()
        x = module.norm_out(x @ weights[16:].view(2, 8)).relu()
        torch.testing.assert_close(together[r], x, atol=1e-5, rtol=1e-5)


def test_stages_begin_by_keeping_their_boxes() -> None:
    torch.manual_seed(0)
    model = QueryInst(build_backbone("resnet18"), 2, num_queries=4, channels=32, hidden=32, stages=3).eval()
    with torch.inference_mode():
        initial = model.start(model.features(torch.randn(1, 3, 64, 96)), [(64, 96)])
        for stage in model.refine(initial, initial.queries):
            assert (stage.boxes - torch.tensor([0.0, 0.0, 96.0, 64.0])).abs().max() < 2
