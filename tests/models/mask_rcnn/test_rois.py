"""Losses and masks of regions one by one."""

import pytest
import torch
import torch.nn.functional as F

from region_objects import objects
from saliency_prompt.models.detector import alone
from saliency_prompt.models.mask_rcnn.rois import Positives, Sampled, choose_masks, mask_loss, positive_regions


@pytest.fixture
def positives() -> Positives:
    torch.manual_seed(0)
    flags = [torch.tensor([True, True, False, True]), torch.tensor([True, False, True, True])]
    weights = torch.tensor([1.0, 0.5, 1.0, 0.25])
    return Positives(
        [torch.zeros(4, 4)], torch.arange(4), torch.tensor([2, 1, 1, 3]), torch.rand(4, 6, 6), *flags, weights
    )


@pytest.mark.parametrize("truth_only", [False, True])
@pytest.mark.parametrize("classes", [1, 4])
def test_mask_loss_region_by_region(positives: Positives, classes: int, truth_only: bool) -> None:
    logits = torch.randn(4, classes, 6, 6)
    used = [0, 3] if truth_only else [0, 1, 3]
    wanted = 0.0
    for r in used:
        own = logits[r, 0 if classes == 1 else int(positives.labels[r])]
        wanted += float(F.binary_cross_entropy_with_logits(own, positives.masks[r])) * float(positives.weights[r])
    found = mask_loss(logits, positives, alone, truth_only=truth_only)
    assert found.item() == pytest.approx(wanted / len(used), rel=1e-5)


def test_a_region_takes_its_classs_mask_or_the_only_one() -> None:
    masks = torch.randn(3, 4, 2, 2)
    assert torch.equal(
        choose_masks(masks, torch.tensor([3, 0, 1])), torch.stack([masks[0, 3], masks[1, 0], masks[2, 1]])
    )
    assert torch.equal(choose_masks(masks[:, :1], torch.tensor([3, 0, 1])), masks[:, 0])


def test_positives_keep_their_places_across_images_of_unequal_counts() -> None:
    first, second = objects(2, [False, True]), objects(3)
    sampled = Sampled(
        [torch.cat([torch.rand(2, 4) + torch.tensor([0.0, 0, 5, 5]), first.boxes]), second.boxes + 1],
        [torch.tensor([0, 0, 1, 0]), torch.tensor([2, 0, 1])],
        [torch.tensor([0, 0, 2, 1]), torch.tensor([3, 0, 2])],
        [torch.zeros(4, 4), torch.zeros(3, 4)],
    )
    found = positive_regions(sampled, [first, second], 28)
    assert found.places.tolist() == [2, 3, 4, 6]
    assert found.labels.tolist() == [2, 1, 3, 2]
    assert [len(one) for one in found.boxes] == [2, 2]
    assert found.has_mask.tolist() == [True, False, True, True]
    assert found.is_truth.tolist() == [False, False, False, False]  # those boxes are the other object's
    swapped = Sampled(
        sampled.boxes, [torch.tensor([0, 0, 0, 1]), torch.tensor([2, 0, 1])], sampled.labels, sampled.deltas
    )
    found = positive_regions(swapped, [first, second], 28)
    assert found.is_truth.tolist() == [True, True, False, False]
    assert found.masks[0, 20:27, 20:27].min() == 1
    assert found.masks[0, :6, :6].max() == 0
