import pytest
import torch

from saliency_prompt.models.backbones.registry import build_backbone
from saliency_prompt.models.backbones.state_dict import fill
from saliency_prompt.models.backbones.vit_state import infer_vit, vit_state
from saliency_prompt.schemas.errors import UserError

DEPTH, WIDTH, PATCH = 2, 8, 4


def timm_state(*, scales: bool = True, registers: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    state = {
        "cls_token": draw(1, 1, WIDTH),
        "pos_embed": draw(1, 10, WIDTH),
        "patch_embed.proj.weight": draw(WIDTH, 3, PATCH, PATCH),
        "patch_embed.proj.bias": draw(WIDTH),
        "norm.weight": draw(WIDTH),
        "norm.bias": draw(WIDTH),
    }
    if registers:
        state["reg_token"] = draw(1, registers, WIDTH)
    for i in range(DEPTH):
        for name, out, inside in (("attn.qkv", 24, 8), ("attn.proj", 8, 8), ("mlp.fc1", 32, 8), ("mlp.fc2", 8, 32)):
            state[f"blocks.{i}.{name}.weight"], state[f"blocks.{i}.{name}.bias"] = draw(out, inside), draw(out)
        for norm in ("norm1", "norm2"):
            state[f"blocks.{i}.{norm}.weight"], state[f"blocks.{i}.{norm}.bias"] = draw(WIDTH), draw(WIDTH)
        if scales:
            state[f"blocks.{i}.ls1.gamma"], state[f"blocks.{i}.ls2.gamma"] = draw(WIDTH), draw(WIDTH)
    return state


def as_transformers(state: dict[str, torch.Tensor], *, nameless_positions: bool = False) -> dict[str, torch.Tensor]:
    names = {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
        "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
        "norm.weight": "layernorm.weight",
        "norm.bias": "layernorm.bias",
    }
    found: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        if "attn.qkv" in name:
            block, kind = name.split(".")[1], name.rpartition(".")[2]
            for part, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                found[f"encoder.layer.{block}.attention.attention.{part}.{kind}"] = third
        elif name == "pos_embed" and nameless_positions:
            found["onnx::Reshape_9"], found["onnx::Concat_3"] = tensor[:, 1:], tensor[:, :1]
        else:
            new = (
                names.get(name, name)
                .replace("blocks.", "encoder.layer.")
                .replace("attn.proj", "attention.output.dense")
            )
            found[new.replace("ls1.gamma", "layer_scale1.lambda1").replace("ls2.gamma", "layer_scale2.lambda1")] = (
                tensor
            )
    found["embeddings.mask_token"] = torch.zeros(1, WIDTH)
    return found


def test_every_layout_leads_to_the_same_names() -> None:
    state = timm_state()
    backbone = {f"backbone.{k}": v for k, v in state.items()} | {"head.mlp.0.weight": torch.zeros(2)}
    onnx = {
        f"backbone.{k}" if not k.startswith("onnx") else k: v
        for k, v in as_transformers(state, nameless_positions=True).items()
    }
    layouts = {
        "timm": state | {"head.weight": torch.zeros(2, 8)},
        "DINO": {"teacher": backbone},
        "DINOv2": {"model": state | {"mask_token": torch.zeros(1, 8)}},
        "transformers": {f"dinov2.{k}": v for k, v in as_transformers(state).items()},
        "ONNX": onnx | {"decoder.conv1.weight": torch.zeros(2)},
    }
    for layout, raw in layouts.items():
        found = vit_state(raw)
        assert found is not None, layout
        assert set(found) == set(state), layout
        for name, tensor in state.items():
            assert torch.equal(found[name], tensor), (layout, name)


def test_a_resnet_is_none() -> None:
    assert vit_state({"conv1.weight": torch.zeros(64, 3, 7, 7)}) is None


def test_architectures_are_read_off_the_weights() -> None:
    dinov2 = {"patch_embed.proj.weight": torch.zeros(384, 3, 14, 14), "blocks.0.ls1.gamma": torch.zeros(384)}
    assert infer_vit(dinov2) == "timm:vit_small_patch14_dinov2"
    assert infer_vit(dinov2 | {"reg_token": torch.zeros(1)}) == "timm:vit_small_patch14_reg4_dinov2"
    assert infer_vit({"patch_embed.proj.weight": torch.zeros(768, 3, 16, 16)}) == "timm:vit_base_patch16_224"
    with pytest.raises(UserError, match=r"features\.arch=timm:NAME"):
        infer_vit(timm_state())


def test_weights_of_another_width_are_refused() -> None:
    pytest.importorskip("timm", reason="timm is not installed (extra vit)")
    module = build_backbone("timm:test_vit").get_submodule("model")
    state = {name: tensor[..., :3] if name == "norm.weight" else tensor for name, tensor in module.state_dict().items()}
    with pytest.raises(UserError, match=r"1 of another shape \(norm\.weight \(3,\)"):
        fill(module, state)
