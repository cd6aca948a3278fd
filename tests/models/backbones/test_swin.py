import math

import pytest
import torch
from torchvision import models

from saliency_prompt.models.backbones.registry import BACKBONES, build_backbone
from saliency_prompt.models.backbones.state_dict import fill
from saliency_prompt.models.backbones.swin import infer_swin, swin_state
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.stages.backbone import load_backbone


def test_the_last_map_is_what_torchvision_classifies() -> None:
    torch.manual_seed(0)
    whole = models.swin_t(weights=None).eval()
    state = swin_state({"state_dict": {f"module.{name}": tensor for name, tensor in whole.state_dict().items()}})
    assert state is not None
    assert infer_swin(state) == "swin_t"
    module = build_backbone("swin_t").eval()
    fill(module, state)
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        pooled = module(image)["c5"].mean((2, 3))
        torch.testing.assert_close(whole.head(pooled), whole(image))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (70, 41)])
def test_maps_are_as_stated(height: int, width: int) -> None:
    module = build_backbone("swin_t").eval()
    assert module.strides == BACKBONES["swin_t"].strides
    with torch.inference_mode():
        maps = module(torch.randn(1, 3, height, width))
        assert list(module(torch.randn(1, 3, height, width), "c3")) == ["c2", "c3"]
    for level, found in maps.items():
        stride = module.strides[level]
        assert found.shape == (1, module.channels[level], math.ceil(height / stride), math.ceil(width / stride))


def test_architectures_are_told_apart() -> None:
    for name in ("swin_s", "swin_b", "swin_v2_t"):
        with torch.device("meta"):
            state = swin_state(dict(build_backbone(name).state_dict()))
        assert state is not None
        assert infer_swin(state) == name
    assert swin_state({"conv1.weight": torch.zeros(1)}) is None
    with pytest.raises(UserError, match="swin_t"):
        infer_swin({"features.0.0.weight": torch.zeros(50, 3, 4, 4)})


def test_a_file_of_another_width_is_told(tmp_path) -> None:
    state = build_backbone("swin_t").state_dict()
    state["features.1.0.attn.qkv.weight"] = torch.zeros(6, 6)
    torch.save(state, tmp_path / "swin.pth")
    with pytest.raises(UserError, match="1 of another shape"):
        load_backbone(str(tmp_path / "swin.pth"))
    with pytest.raises(UserError, match="stride_in_1x1"):
        build_backbone("swin_t", stride_in_1x1=True)
