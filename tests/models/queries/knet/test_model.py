"""K-Net: shapes, gradients, and independence of the images in a batch."""

import pytest
import torch

from saliency_prompt.models.backbones.registry import build_backbone
from saliency_prompt.models.queries.knet.model import KNet
from saliency_prompt.models.queries.knet.update import gather_objects
from saliency_prompt.models.queries.layers import sine_position


@pytest.fixture(scope="module")
def knet() -> KNet:
    torch.manual_seed(0)
    return KNet(build_backbone("resnet18"), 5, num_queries=7, channels=32, hidden=64).eval()


def test_shapes(knet: KNet) -> None:
    initial = knet.start(knet.features(torch.randn(2, 3, 64, 96)), [(64, 96)] * 2)
    stages = knet.refine(initial, initial.queries)
    assert initial.masks.shape == (2, 7, 8, 12)
    assert initial.semantic.shape == (2, 5, 8, 12)
    assert len(stages) == 3
    for stage in stages:
        assert stage.queries.shape == (2, 7, 32)
        assert stage.classes.shape == (2, 7, 5)
        assert stage.masks.shape == (2, 7, 8, 12)
    assert stages[-1].classes.sigmoid().mean().item() == pytest.approx(0.01, abs=0.01)


def test_an_image_does_not_see_its_neighbours(knet: KNet) -> None:
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        together = knet.start(knet.features(images), [(64, 64)] * 3)
        alone = knet.start(knet.features(images[1:2]), [(64, 64)])
        torch.testing.assert_close(alone.masks[0], together.masks[1], atol=1e-4, rtol=1e-4)
        a, b = knet.refine(alone, alone.queries)[-1], knet.refine(together, together.queries)[-1]
    torch.testing.assert_close(a.masks[0], b.masks[1], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(a.classes[0], b.classes[1], atol=1e-3, rtol=1e-3)


def test_every_parameter_learns() -> None:
    knet = KNet(build_backbone("resnet18"), 3, num_queries=4, channels=32, hidden=64)
    initial = knet.start(knet.features(torch.randn(1, 3, 64, 64)), [(64, 64)])
    stages = knet.refine(initial, initial.queries)
    total = initial.masks.sum() + initial.semantic.sum()
    total = total + sum(stage.masks.square().sum() + stage.classes.square().sum() for stage in stages)
    total.backward()
    assert [name for name, p in knet.named_parameters() if p.grad is None] == []


def test_objects_are_sums_under_hard_masks() -> None:
    masks, features = torch.randn(2, 3, 4, 5), torch.randn(2, 6, 4, 5)
    found = gather_objects(masks, features)
    for b in range(2):
        for n in range(3):
            wanted = features[b][:, masks[b, n].sigmoid() > 0.5].sum(1)
            torch.testing.assert_close(found[b, n], wanted, atol=1e-5, rtol=1e-5)


def test_positions_tell_rows_from_columns() -> None:
    position = sine_position(torch.zeros(1, 32, 6, 9))
    assert position.shape == (1, 32, 6, 9)
    assert torch.equal(position[:, :16, :, 0], position[:, :16, :, 5])
    assert torch.equal(position[:, 16:, 0], position[:, 16:, 3])
    flat = position[0].flatten(1).T
    assert torch.cdist(flat, flat).add(torch.eye(54) * 9).min() > 0.01


def test_before_the_head_prompts_move_the_first_masks(knet: KNet) -> None:
    pyramid = knet.features(torch.randn(1, 3, 64, 64))
    plain, moved = knet.start(pyramid, [(64, 64)]), knet.start(pyramid, [(64, 64)], torch.ones(1, 7, 32))
    assert not torch.allclose(plain.masks, moved.masks)
    same = knet.start(pyramid, [(64, 64)], torch.zeros(1, 7, 32))
    assert torch.equal(plain.masks, same.masks)


def test_class_layers_are_those_whose_shape_depends_on_classes(knet: KNet) -> None:
    other = KNet(build_backbone("resnet18"), 9, num_queries=7, channels=32, hidden=64).state_dict()
    differing = {name for name, value in knet.state_dict().items() if other[name].shape != value.shape}
    assert differing == {n for n in other if n.startswith(tuple(knet.class_layers()))}
