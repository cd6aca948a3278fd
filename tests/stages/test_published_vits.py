"""Weights in the layouts in which DINO, DINOv2 and DINOv3 are published."""

from pathlib import Path

import pytest
import torch

from saliency_prompt.models.backbones.registry import build_backbone
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.stages.backbone import load_backbone

pytest.importorskip("timm", reason="timm is not installed (extra vit)")


def dino(state: dict[str, torch.Tensor]) -> dict[str, object]:
    return dict(state)


def dinov2(state: dict[str, torch.Tensor]) -> dict[str, object]:
    state["mask_token"] = torch.zeros(1, state["pos_embed"].shape[2])
    if "reg_token" in state:
        state["register_tokens"] = state.pop("reg_token")
    return dict(state)


def dinov3(state: dict[str, torch.Tensor]) -> dict[str, object]:
    found: dict[str, object] = {"mask_token": torch.zeros(1, 1, 384), "rope_embed.periods": torch.zeros(16)}
    for name, tensor in state.items():
        if name.endswith("q_bias"):
            zero = torch.zeros_like(tensor)
            other = state[name.replace("q_bias", "v_bias")]
            found[name.replace("q_bias", "qkv.bias")] = torch.cat([tensor, zero, other])
            found[name.replace("q_bias", "qkv.bias_mask")] = torch.cat([zero, zero, zero])
        elif not name.endswith(("v_bias", "k_bias")):
            official = name.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")
            found[official.replace("reg_token", "storage_tokens")] = tensor
    return found


@pytest.mark.parametrize(
    ("arch", "published"),
    [
        ("vit_small_patch8_224", dino),
        ("vit_small_patch14_reg4_dinov2", dinov2),
        ("vit_small_patch16_dinov3_qkvb", dinov3),
    ],
)
def test_a_published_file_gives_its_features(arch: str, published, tmp_path: Path) -> None:
    torch.manual_seed(0)
    own = build_backbone(f"timm:{arch}").eval()
    with torch.no_grad():
        for name, tensor in own.named_parameters():
            if name.endswith(("bias", "token", "gamma_1", "gamma_2")):
                tensor.normal_(std=0.1)
    path = tmp_path / "published.pth"
    torch.save(published({k.removeprefix("model."): v for k, v in own.state_dict().items()}), path)
    loaded = load_backbone(str(path))
    assert loaded.arch == f"timm:{arch}"
    image = torch.randn(1, 3, 112, 112)
    with torch.inference_mode():
        torch.testing.assert_close(loaded.module(image)["c5"], own(image)["c5"])


def test_weights_of_another_width_are_told(tmp_path: Path) -> None:
    state = {k.removeprefix("model."): v for k, v in build_backbone("timm:test_vit").state_dict().items()}
    torch.save(state, tmp_path / "narrow.pth")
    with pytest.raises(UserError, match=r"features\.arch=timm:NAME"):
        load_backbone(str(tmp_path / "narrow.pth"))
    with pytest.raises(UserError, match="of another shape"):
        load_backbone(str(tmp_path / "narrow.pth"), arch="timm:vit_small_patch16_224")
