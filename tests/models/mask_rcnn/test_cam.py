"""Class activation maps and the fusion against loops."""

import math

import pytest
import torch
import torch.nn.functional as F

from saliency_prompt.models.mask_rcnn.cam import ConvBoxHead, ConvBoxPredictor, activation_maps, resize, to_unit
from saliency_prompt.models.mask_rcnn.contrast import ContrastiveHead, attend
from saliency_prompt.schemas.training.contrastmask import ContrastConfig


def test_a_map_is_the_sum_of_weighted_features() -> None:
    features, weights, labels = torch.randn(3, 4, 2, 5), torch.randn(6, 4), torch.tensor([5, 0, 2])
    maps = activation_maps(features, weights, labels)
    for r in range(3):
        for y in range(2):
            for x in range(5):
                wanted = sum(weights[labels[r], k] * features[r, k, y, x] for k in range(4))
                torch.testing.assert_close(maps[r, y, x], wanted)


def test_the_average_of_a_map_is_its_classs_logit_without_bias() -> None:
    torch.manual_seed(0)
    head, predictor = ConvBoxHead(8), ConvBoxPredictor(8, 4)
    features = head(torch.randn(5, 8, 7, 7))
    logits, deltas = predictor(features)
    assert deltas.shape == (5, 16)
    for label in range(4):
        maps = activation_maps(features[0], predictor.cls_score.weight, torch.full((5,), label))
        torch.testing.assert_close(maps.mean((1, 2)) + predictor.cls_score.bias[label], logits[:, label])


def test_the_box_head_has_the_convolutions_that_are_written() -> None:
    head = ConvBoxHead(8)
    assert [len(part) for part in (head.shared, head.classes, head.boxes)] == [4, 1, 2]
    x = torch.randn(2, 8, 7, 7)
    what, where = head(x)
    for layer in head.shared:
        x = F.relu(F.conv2d(x, layer[0].weight, layer[0].bias, padding=1))
    torch.testing.assert_close(what, F.relu(F.conv2d(x, head.classes[0][0].weight, head.classes[0][0].bias, padding=1)))
    for layer in head.boxes:
        x = F.relu(F.conv2d(x, layer[0].weight, layer[0].bias, padding=1))
    torch.testing.assert_close(where, x)


def test_gradients_pass_the_features_and_not_the_weights() -> None:
    features, weights = torch.randn(2, 4, 3, 3, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    activation_maps(features, weights, torch.tensor([1, 2])).sum().backward()
    assert features.grad is not None
    assert weights.grad is None


def test_maps_are_stretched_to_0_and_1_each_by_itself() -> None:
    maps = torch.randn(3, 7, 7) * torch.tensor([1.0, 100.0, 0.0])[:, None, None] + 5
    unit = to_unit(maps)
    assert unit.amin((1, 2)).tolist() == [0, 0, 0]
    assert unit.amax((1, 2)).tolist() == [1, 1, 0]
    torch.testing.assert_close(unit[0], (maps[0] - maps[0].min()) / (maps[0].max() - maps[0].min()))
    assert resize(maps, 14).shape == (3, 14, 14)
    assert to_unit(torch.zeros(0, 7, 7)).shape == (0, 7, 7)


def test_attention_pixel_by_pixel() -> None:
    features = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    found = attend(features)
    for n in range(2):
        pixels = features[n].flatten(1).T
        for i, own in enumerate(pixels):
            scores = [math.exp(float(F.cosine_similarity(own, other, dim=0))) for other in pixels]
            wanted = sum(s * other for s, other in zip(scores, pixels, strict=True)) / sum(scores)
            torch.testing.assert_close(found[n].flatten(1)[:, i], wanted)


@pytest.mark.parametrize("attention", [False, True])
def test_fusion(attention: bool) -> None:
    torch.manual_seed(0)
    inputs, features = torch.randn(2, 8, 14, 14), torch.rand(2, 8, 28, 28)
    seen = attend(features) if attention else features
    small = seen.view(2, 8, 14, 2, 14, 2).mean((3, 5))  # bilinear at a half is the mean of four
    added = ContrastiveHead(8, ContrastConfig(fuse="add", attention=attention))
    mixed = torch.einsum("oc,nchw->nohw", added.fuse.weight[:, :, 0, 0], small) + added.fuse.bias[:, None, None]
    torch.testing.assert_close(added.join(inputs, features), inputs + mixed, atol=1e-5, rtol=1e-4)
    beside = ContrastiveHead(8, ContrastConfig(fuse="concat", attention=attention)).join(inputs, features)
    torch.testing.assert_close(beside, torch.cat([inputs, small], dim=1), atol=1e-5, rtol=1e-4)


def test_encoder_and_projector_have_the_layers_of_the_table() -> None:
    head = ContrastiveHead(8, ContrastConfig(encoder_convs=8, projector_layers=3))
    assert len(head.encoder) == 8
    assert [type(layer).__name__ for layer in head.projector] == ["Conv2d", "ReLU", "Conv2d", "ReLU", "Conv2d"]
    normed = ContrastiveHead(8, ContrastConfig(projector_norm=True))
    kinds = ["Conv2d", "BatchNorm2d", "ReLU"] * 2 + ["Conv2d"]
    assert [type(layer).__name__ for layer in normed.projector] == kinds
