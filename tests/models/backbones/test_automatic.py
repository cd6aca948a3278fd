import math
from pathlib import Path

import pytest
import torch

from saliency_prompt.models.backbones.registry import build_backbone, strides_of
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.stages.backbone import load_backbone

transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra annotate)")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Small models in the form in which transformers saves them."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    flat = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, patch_size=14, image_size=56
    )
    pyramid = transformers.ConvNextConfig(hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1])
    transformers.Dinov2Backbone(flat).save_pretrained(folder / "flat")
    transformers.ConvNextBackbone(pyramid).save_pretrained(folder / "pyramid")
    transformers.CLIPConfig().save_pretrained(folder / "other")
    return {name: f"transformers:{folder / name}" for name in ("flat", "pyramid", "other")}


@pytest.mark.parametrize(
    ("kind", "strides"), [("flat", {"c5": 14}), ("pyramid", {"c2": 4, "c3": 8, "c4": 16, "c5": 32})]
)
def test_maps_are_as_stated(kind: str, strides: dict[str, int], models: dict[str, str]) -> None:
    loaded = load_backbone(models[kind])
    module = loaded.module
    assert loaded.arch == models[kind]
    assert module.strides == strides == strides_of(models[kind])
    height, width = 60, 90
    with torch.inference_mode():
        maps = module(torch.randn(2, 3, height, width))
    coarsest = max(strides.values())
    rows, columns = (math.ceil(side / coarsest) * coarsest for side in (height, width))
    for level, found in maps.items():
        assert found.shape == (2, module.channels[level], rows // strides[level], columns // strides[level])
    again = load_backbone(models[kind])
    assert again.weights_sha256 == loaded.weights_sha256
    fresh = build_backbone(models[kind])
    assert {name: tensor.shape for name, tensor in fresh.state_dict().items()} == {
        name: tensor.shape for name, tensor in module.state_dict().items()
    }


def test_tokens_are_those_of_the_whole_model(models: dict[str, str]) -> None:
    whole = transformers.Dinov2Model.from_pretrained(models["flat"].partition(":")[2]).eval()
    image = torch.randn(1, 3, 42, 56)
    with torch.inference_mode():
        tokens = whole(image).last_hidden_state[:, 1:].transpose(1, 2).unflatten(2, (3, 4))
        torch.testing.assert_close(load_backbone(models["flat"]).module(image)["c5"], tokens)


def test_what_cannot_be_had_is_told(models: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="clip"):
        build_backbone(models["other"])
    with pytest.raises(UserError, match="save_pretrained"):
        build_backbone(f"transformers:{tmp_path / 'absent'}")
    with pytest.raises(UserError, match=r"features\.layer in -3\.\.2"):
        build_backbone(models["flat"], layer=7)
    with pytest.raises(UserError, match=r"features\.level"):
        build_backbone(models["pyramid"], layer=1)
    with pytest.raises(UserError, match=r"take alone"):
        build_backbone(models["flat"], take="keys")


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(UserError, match=r"saliency-prompt\[annotate\]"):
        build_backbone("transformers:anything")
