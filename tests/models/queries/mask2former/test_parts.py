"""Pieces of Mask2Former against slow references."""

import math

import pytest
import torch
import torch.nn.functional as F

from saliency_prompt.models.detector import Targets
from saliency_prompt.models.queries.mask2former.attention import DeformableAttention
from saliency_prompt.models.queries.mask2former.criterion import NO_OBJECT, Weights, _class_loss, match_cost
from saliency_prompt.models.queries.mask2former.decoder import blocked_cells
from saliency_prompt.models.queries.mask2former.model import enlarge
from saliency_prompt.models.queries.mask2former.pixel_decoder import cell_centres
from saliency_prompt.models.queries.mask2former.points import sample, uncertain_points, uniform

SIZES = [(2, 3), (4, 5)]
CELLS = 6 + 20


def slow_value(map_Dhw: torch.Tensor, x: float, y: float) -> torch.Tensor:
    """Bilinear at (x, y) in 0..1, zero outside."""
    depth, height, width = map_Dhw.shape
    x, y = x * width - 0.5, y * height - 0.5
    total = torch.zeros(depth)
    for i in (math.floor(y), math.floor(y) + 1):
        for j in (math.floor(x), math.floor(x) + 1):
            if 0 <= i < height and 0 <= j < width:
                total += (1 - abs(y - i)) * (1 - abs(x - j)) * map_Dhw[:, i, j]
    return total


def test_attention_is_the_formula() -> None:
    torch.manual_seed(0)
    module = DeformableAttention(8, 2, heads=2, points=3)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    queries, values = torch.randn(1, CELLS, 8), torch.randn(1, CELLS, 8)
    centres = cell_centres(SIZES, queries.device)
    found = module(queries, values, centres, SIZES)[0]
    projected = module.value(values)[0]
    starts = [0, 6]
    for cell in range(0, CELLS, 5):
        offsets = module.offsets(queries[0, cell]).view(2, 2, 3, 2)
        weights = module.weights(queries[0, cell]).view(2, -1).softmax(-1).view(2, 2, 3)
        heads = []
        for head in range(2):
            total = torch.zeros(4)
            for level, (height, width) in enumerate(SIZES):
                rows = projected[starts[level] : starts[level] + height * width, 4 * head : 4 * head + 4]
                level_map = rows.T.reshape(4, height, width)
                for point in range(3):
                    dx, dy = offsets[head, level, point].tolist()
                    x, y = float(centres[cell, 0]) + dx / width, float(centres[cell, 1]) + dy / height
                    total += weights[head, level, point] * slow_value(level_map, x, y)
            heads.append(total)
        torch.testing.assert_close(found[cell], module.out(torch.cat(heads)), atol=1e-4, rtol=1e-4)


def test_attention_begins_on_squares_around_each_cell() -> None:
    module = DeformableAttention(16, 3, heads=8, points=4)
    offsets = module.offsets.bias.view(8, 3, 4, 2)
    assert torch.equal(offsets.abs().amax(-1), torch.arange(1.0, 5).expand(8, 3, 4))
    torch.testing.assert_close(offsets[1, 0, 1], torch.tensor([2.0, 2.0]))  # 45 degrees, two cells
    torch.testing.assert_close(offsets[2, 2, 0], torch.tensor([0.0, 1.0]), atol=1e-6, rtol=0)
    assert not module.offsets.weight.any()
    assert not module.weights.weight.any()


def test_samples_at_cell_centres_are_the_cells() -> None:
    maps = torch.randn(3, 4, 5)
    centres = cell_centres([(4, 5)], maps.device)
    torch.testing.assert_close(sample(maps, centres), maps.flatten(1))
    torch.testing.assert_close(sample(maps, centres.expand(3, -1, -1)), maps.flatten(1))


def test_points_lie_where_a_mask_is_unsure() -> None:
    torch.manual_seed(0)
    logits = torch.linspace(-8, 8, 64).expand(2, 64, 64).clone()
    points = uncertain_points(logits, 400, uniform)
    assert points.shape == (2, 400, 2)
    values = sample(logits, points).abs()
    assert values[:, :300].max() < 4  # a quarter of three times as many lies within 2, in the mean
    assert values[:, 300:].max() > 6
    assert 0 <= points.min() <= points.max() <= 1


def test_match_cost_is_the_formula() -> None:
    classes, logits = torch.randn(4, 3), torch.randn(4, 10)
    labels, targets = torch.tensor([1, 0]), torch.rand(2, 10)
    found = match_cost(classes, logits, labels, targets, Weights(2.0, 5.0, 3.0))
    for n in range(4):
        for m in range(2):
            cross_entropy = F.binary_cross_entropy_with_logits(logits[n], targets[m])
            p = logits[n].sigmoid()
            dice = 1 - (2 * (p * targets[m]).sum() + 1) / (p.sum() + targets[m].sum() + 1)
            wanted = 5 * cross_entropy + 3 * dice - 2 * classes[n].softmax(0)[labels[m]]
            assert float(found[n, m]) == pytest.approx(float(wanted), rel=1e-4, abs=1e-5)


def test_queries_without_an_object_count_a_tenth() -> None:
    classes = torch.randn(2, 3, 4)
    targets = [Targets(torch.zeros(n, 8, 8), torch.arange(n), torch.zeros(n, 4), torch.ones(n)) for n in (1, 0)]
    pairs = [(torch.tensor([2]), torch.tensor([0])), (torch.tensor([], dtype=torch.int64),) * 2]
    found = _class_loss(classes, targets, pairs, Weights(), lambda count: count.clamp_min(1))
    wanted = torch.tensor([[3, 3, 0], [3, 3, 3]])
    reference = F.cross_entropy(classes.flatten(0, 1), wanted.flatten(), torch.tensor([1, 1, 1, NO_OBJECT]))
    assert float(found) == pytest.approx(2 * float(reference), rel=1e-5)


def test_a_query_whose_mask_is_nowhere_sees_everything() -> None:
    masks = torch.full((1, 3, 8, 8), -5.0)
    masks[0, 1, :4] = 5
    masks[0, 2] = 5
    blocked = blocked_cells(masks, (2, 2))[0]
    assert blocked.tolist() == [[False] * 4, [False, False, True, True], [False] * 4]


def test_masks_are_enlarged_before_they_are_cut() -> None:
    logits = torch.randn(13, 5, 6)  # more than are enlarged at once
    maps, sureness = enlarge(logits, (18, 23))
    assert maps.shape == (13, 20, 24)
    big = F.interpolate(logits[None], scale_factor=4, mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(maps.float(), big.sigmoid(), atol=1e-3, rtol=0)
    for n in range(13):
        inside = big[n, :18, :23]
        assert float(sureness[n]) == pytest.approx(float(inside[inside > 0].sigmoid().mean()), rel=1e-4)
    maps, sureness = enlarge(torch.full((1, 5, 6), -1.0), (18, 23))
    assert float(sureness) == 0
