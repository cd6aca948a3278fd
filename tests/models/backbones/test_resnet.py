import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from saliency_prompt.models.backbones.registry import BACKBONES, build_backbone
from saliency_prompt.models.backbones.resnet import ResNet, fold_batch_norm
from saliency_prompt.models.backbones.state_dict import load_backbone_state
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.store.weights import read_tensors

SHARED = Path(__file__).resolve().parents[4] / "shared"
RESNETS = [name for name in BACKBONES if name.startswith("resne")]


def with_statistics(model: nn.Module) -> nn.Module:
    """Batch norm statistics far from the identity, as training leaves them."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            n = module.num_features
            module.running_mean = torch.randn(n, generator=generator) * 0.3
            module.running_var = torch.rand(n, generator=generator) * 3 + 0.05
            module.weight.data = torch.rand(n, generator=generator) + 0.2
            module.bias.data = torch.randn(n, generator=generator) * 0.1
    return model.eval()


@pytest.mark.parametrize("arch", RESNETS)
def test_parameters_have_torchvisions_names_and_shapes(arch):
    theirs = {k: v.shape for k, v in getattr(torchvision.models, arch)().state_dict().items()}
    ours = {k: v.shape for k, v in build_backbone(arch).state_dict().items()}
    assert ours == {k: v for k, v in theirs.items() if not k.startswith("fc.")}


@pytest.mark.parametrize("arch", ["resnet18", "resnet50", "resnext50_32x4d"])
@torch.inference_mode()
def test_forward_is_torchvisions(arch):
    theirs = with_statistics(getattr(torchvision.models, arch)())
    ours = build_backbone(arch).eval()
    load_backbone_state(ours, theirs.state_dict())
    images = torch.randn(2, 3, 70, 101, generator=torch.Generator().manual_seed(2))
    logits = theirs.fc(ours(images)["c5"].mean((2, 3)))
    torch.testing.assert_close(logits, theirs(images), rtol=1e-3, atol=1e-3)


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 97), st.integers(1, 97), st.sampled_from(["c2", "c3", "c4", "c5"]))
@torch.inference_mode()
def test_levels_channels_and_grid_sizes(height, width, level):
    model = build_backbone("resnet18").eval()
    maps = model(torch.zeros(1, 3, height, width), level)
    assert list(maps) == ["c2", "c3", "c4", "c5"][: int(level[1]) - 1]
    for name, features in maps.items():
        h, w = height, width
        for _ in range(int(name[1])):
            h, w = math.ceil(h / 2), math.ceil(w / 2)
        assert features.shape == (1, model.channels[name], h, w)
        assert (h, w) == (math.ceil(height / model.strides[name]), math.ceil(width / model.strides[name]))


def test_layers_after_the_wanted_level_are_not_run():
    model = build_backbone("resnet18").eval()
    model.layer4 = None
    assert list(model(torch.zeros(1, 3, 32, 32), "c4")) == ["c2", "c3", "c4"]


def test_an_unknown_level_and_an_unknown_name_are_refused():
    with pytest.raises(ValueError, match="c2, c3, c4, c5"):
        build_backbone("resnet18")(torch.zeros(2, 3, 32, 32), "p5")
    with pytest.raises(UserError, match="resnet101"):
        build_backbone("resnet152")


@torch.inference_mode()
def test_stride_in_1x1_moves_the_stride_and_nothing_else():
    usual, caffe = build_backbone("resnet50").eval(), build_backbone("resnet50", stride_in_1x1=True).eval()
    load_backbone_state(caffe, usual.state_dict())
    for layer in (caffe.layer2, caffe.layer3, caffe.layer4):
        assert (layer[0].conv1.stride, layer[0].conv2.stride) == ((2, 2), (1, 1))
        assert (layer[1].conv1.stride, layer[1].conv2.stride) == ((1, 1), (1, 1))
    images = torch.randn(1, 3, 75, 90, generator=torch.Generator().manual_seed(0))
    ours, theirs = caffe(images), usual(images)
    assert torch.equal(ours["c2"], theirs["c2"])
    assert ours["c5"].shape == theirs["c5"].shape
    assert not torch.allclose(ours["c3"], theirs["c3"])


@pytest.mark.parametrize("arch", ["resnet18", "resnet34", "lab-color"])
def test_stride_in_1x1_needs_a_1x1_convolution(arch):
    with pytest.raises(UserError, match="stride_in_1x1"):
        build_backbone(arch, stride_in_1x1=True)


@pytest.mark.parametrize("arch", ["resnet18", "resnet50", "resnext50_32x4d"])
@torch.inference_mode()
def test_folded_batch_norm_computes_the_same(arch):
    model = with_statistics(build_backbone(arch))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    folded = fold_batch_norm(model.train())
    model.eval()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert not any(m.training for m in folded.modules())
    assert {v.dtype for v in folded.state_dict().values()} == {torch.float32}
    images = torch.randn(1, 3, 64, 80, generator=torch.Generator().manual_seed(3))
    for name, expected in model(images).items():
        torch.testing.assert_close(folded(images)[name], expected, rtol=1e-4, atol=1e-4 * expected.abs().max())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@torch.inference_mode()
def test_real_weights_on_a_real_photograph():
    weights, photos = SHARED / "weights/resnet50_in1k_stride1x1.safetensors", SHARED / "data/coco_train258/images"
    if not weights.is_file() or not photos.is_dir():
        pytest.skip("needs ../shared with the ResNet-50 weights and the COCO photographs")
    model = ResNet("resnet50", stride_in_1x1=True).eval()
    load_backbone_state(model, read_tensors(weights))
    rgb = cv2.cvtColor(cv2.imread(str(min(photos.glob("*.jpg")))), cv2.COLOR_BGR2RGB)
    pixels = (rgb.astype(np.float32) - model.mean) / model.std
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    c5 = model(images)["c5"]
    assert c5.shape[1] == 2048
    assert torch.isfinite(c5).all()
    # a trained network answers sparsely and differently from place to place
    assert 0.05 < (c5 > 0).float().mean() < 0.9
    unit = nn.functional.normalize(c5.flatten(2)[0], dim=0)
    assert (unit.T @ unit).min() < 0.5
    folded = fold_batch_norm(model)(images)["c5"]
    assert nn.functional.cosine_similarity(folded.flatten(), c5.flatten(), dim=0) > 0.99999
