"""What the registry and the configurations say of backbones is what the modules are."""

import typing

import pytest
import torch
from torch import nn

from saliency_prompt.models.backbones.registry import BACKBONES, build_backbone
from saliency_prompt.schemas.labels.saliency import FeaturesConfig


def test_the_configuration_knows_the_registered_ones() -> None:
    ours, _ = typing.get_args(FeaturesConfig.model_fields["arch"].annotation)  # and timm's, by a pattern
    named = typing.get_args(ours)
    assert set(named) == {"auto", *BACKBONES}


@pytest.mark.parametrize("arch", ["resnet18", "resnet50", "lab-color"])
@torch.inference_mode()
def test_a_backbone_is_what_it_states(arch: str) -> None:
    module = build_backbone(arch).eval()
    assert module.strides == BACKBONES[arch].strides
    assert module.levels == tuple(module.strides) == tuple(module.channels)
    assert list(module.strides.values()) == sorted(module.strides.values())
    assert bool(list(module.parameters())) == BACKBONES[arch].learned == (module.version is None)
    height, width = 65 * module.multiple, 66 * module.multiple
    for level, found in module(torch.rand(1, 3, height, width), module.levels[-1]).items():
        stride = module.strides[level]
        assert found.shape[1:] == (module.channels[level], -(-height // stride), -(-width // stride))


@pytest.mark.parametrize("arch", ["resnet18", "lab-color"])
@torch.inference_mode()
def test_the_folded_copy_computes_the_same_and_leaves_the_original(arch: str) -> None:
    module = build_backbone(arch).eval()
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    folded = module.folded()
    assert not folded.training
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
    torch.testing.assert_close(folded(images)["c5"], module(images)["c5"], rtol=1e-3, atol=1e-4)
    for parameter in folded.parameters():
        parameter.zero_()
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())
