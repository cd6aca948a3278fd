import math

import pytest
import torch
from torch.nn import functional as F

from saliency_prompt.models.backbones.registry import build_backbone, strides_of
from saliency_prompt.schemas.errors import UserError

pytest.importorskip("timm", reason="timm is not installed (extra vit)")


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        ("test_vit", {"c5": 16}),
        ("test_vit2", {"c5": 16}),
        ("test_vit4", {"c5": 16}),
        ("test_convnext", {"c2": 4, "c3": 8, "c4": 16, "c5": 32}),
        ("test_resnet", {"c3": 4, "c4": 8, "c5": 16}),
    ],
)
def test_maps_are_as_stated(name: str, strides: dict[str, int]) -> None:
    module = build_backbone(f"timm:{name}").eval()
    assert strides_of(f"timm:{name}") == module.strides
    if name != "test_resnet":
        assert module.strides == strides
    for height, width in ((64, 96), (70, 41)):
        with torch.inference_mode():
            maps = module(torch.randn(2, 3, height, width))
        assert list(maps) == list(module.levels)
        coarsest = max(module.strides.values())
        rows, columns = (math.ceil(side / coarsest) * coarsest for side in (height, width))
        for level, found in maps.items():
            stride = module.strides[level]
            assert found.shape == (2, module.channels[level], rows // stride, columns // stride)


def test_tokens_block_and_keys_are_those_of_timm() -> None:
    torch.manual_seed(0)
    image = torch.randn(1, 3, 64, 64)
    built = {take: build_backbone("timm:test_vit", take=take).eval() for take in ("tokens", "block", "keys")}
    for module in built.values():
        module.load_state_dict(built["tokens"].state_dict())
    model = built["tokens"].get_submodule("model")
    seen: dict[str, torch.Tensor] = {}
    last = list(model.blocks)[-1]
    last.attn.qkv.register_forward_hook(lambda _m, _i, out: seen.update(qkv=out))
    last.register_forward_hook(lambda _m, _i, out: seen.update(block=out))
    with torch.inference_mode():
        final = model.forward_features(image)
        prefix = model.num_prefix_tokens
        width = final.shape[2]

        def grid(tokens: torch.Tensor) -> torch.Tensor:
            return tokens[:, prefix:].transpose(1, 2).unflatten(2, (4, 4))

        torch.testing.assert_close(built["tokens"](image)["c5"], grid(final))
        torch.testing.assert_close(built["block"](image)["c5"], grid(seen["block"]))
        torch.testing.assert_close(built["keys"](image)["c5"], grid(seen["qkv"][..., width : 2 * width]))


def test_a_layer_before_the_last_differs_and_the_first_gives_no_keys() -> None:
    torch.manual_seed(0)
    first, last = build_backbone("timm:test_vit", layer=0).eval(), build_backbone("timm:test_vit").eval()
    first.load_state_dict(last.state_dict())
    image = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        assert not torch.allclose(first(image)["c5"], last(image)["c5"])
    with pytest.raises(UserError, match=r"features\.take=tokens"):
        build_backbone("timm:test_vit", layer=0, take="keys")
    with pytest.raises(UserError, match=r"features\.layer"):
        build_backbone("timm:test_vit", layer=40)


def test_an_odd_size_is_the_scaled_image() -> None:
    module = build_backbone("timm:test_vit").eval()
    image = torch.randn(1, 3, 50, 64)
    with torch.inference_mode():
        scaled = F.interpolate(image, (64, 64), mode="bilinear", align_corners=False)
        torch.testing.assert_close(module(image)["c5"], module(scaled)["c5"])


def test_mean_and_deviation_are_on_the_scale_of_pixels() -> None:
    module = build_backbone("timm:test_vit")
    assert module.mean == tuple(255 * v for v in module.get_submodule("model").pretrained_cfg["mean"])


@pytest.mark.parametrize(
    ("arch", "options", "words"),
    [
        ("timm:vit_smal_patch14", {}, "vit_small_patch16_224"),
        ("timm:test_convnext", {"take": "keys"}, r"features\.level"),
        ("timm:test_vit", {"stride_in_1x1": True}, "stride_in_1x1"),
        ("resnet18", {"take": "keys"}, r"features\.take"),
        ("resnet18", {"layer": 3}, r"features\.layer"),
    ],
)
def test_what_cannot_be_is_said(arch: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        build_backbone(arch, **options)


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(UserError, match=r"saliency-prompt\[vit\]"):
        build_backbone("timm:test_vit")


def test_a_model_without_a_grid_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    monkeypatch.setattr(timm, "create_model", lambda *_args, **_options: torch.nn.Linear(1, 1))
    with pytest.raises(UserError, match="no features on a grid"):
        build_backbone("timm:test_vit")
