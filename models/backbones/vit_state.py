"""From the shapes in which vision transformers are saved to timm's names. Pure functions.

Seen in the wild: DINO and DINOv2 as published (`blocks.0.attn.qkv.weight`, perhaps under `teacher` and `backbone.`),
DINOv3 as published (`storage_tokens`, a masked bias of keys), transformers' Dinov2
(`encoder.layer.0.attention.attention.query.weight`), and ONNX exports of it, whose position embeddings are two
constants without a name.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ...schemas.errors import UserError
from .state_dict import unwrap

_PREFIX = re.compile(r"^(?:(?:module|model|backbone|encoder_q|dinov2|vit)\.)+")
_DROPPED = re.compile(
    r"^(?:head|heads|decoder|dino_head|ibot_head|fc)(?:\.|_|$)|mask_token$|periods$|bias_mask$|^local_cls_norm"
)
_TRANSFORMERS = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"blocks.\1.attn.proj."),
    (r"^encoder\.layer\.(\d+)\.layer_scale(\d)\.lambda1$", r"blocks.\1.ls\2.gamma"),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"^layernorm\.", "norm."),
    (r"^register_tokens$", "reg_token"),
    (r"^storage_tokens$", "reg_token"),
)
_PART = re.compile(r"^(blocks\.\d+\.)attention\.attention\.(query|key|value)\.(weight|bias)$")
# (channels, patch, LayerScale, register tokens) -> timm's name
_ARCHS = {
    (384, 14, True, False): "vit_small_patch14_dinov2",
    (768, 14, True, False): "vit_base_patch14_dinov2",
    (1024, 14, True, False): "vit_large_patch14_dinov2",
    (384, 14, True, True): "vit_small_patch14_reg4_dinov2",
    (768, 14, True, True): "vit_base_patch14_reg4_dinov2",
    (384, 16, False, False): "vit_small_patch16_224",
    (384, 8, False, False): "vit_small_patch8_224",
    (768, 16, False, False): "vit_base_patch16_224",
    (768, 8, False, False): "vit_base_patch8_224",
}
_DINOV3 = {
    384: "vit_small_patch16_dinov3_qkvb",
    768: "vit_base_patch16_dinov3_qkvb",
    1024: "vit_large_patch16_dinov3_qkvb",
}
_STEM = "patch_embed.proj.weight"


def vit_state(raw: Mapping[str, object]) -> dict[str, Tensor] | None:
    """The tensors of a vision transformer under timm's names, without heads; None where there is none."""
    tensors = {_PREFIX.sub("", name): tensor for name, tensor in unwrap(raw).items()}
    positions = [t for n, t in tensors.items() if n.startswith("onnx::") and t.ndim == 3 and t.shape[0] == 1]
    state: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        for pattern, replacement in _TRANSFORMERS:
            renamed = re.sub(pattern, replacement, name)
            if renamed != name:
                name = renamed  # noqa: PLW2901
                break
        if match := _PART.match(name):
            parts.setdefault(f"{match[1]}attn.qkv.{match[3]}", {})[match[2]] = tensor
        elif not _DROPPED.search(name) and not name.startswith("onnx::"):
            state[name] = tensor
    if _STEM not in state:
        return None
    if "storage_tokens" in tensors:
        state = _as_eva(state)
    for name, three in parts.items():
        state[name] = torch.cat([three[part] for part in ("query", "key", "value")])
    if "pos_embed" not in state and len(positions) == 2:
        state["pos_embed"] = torch.cat(sorted(positions, key=lambda t: t.shape[1]), dim=1)
    blocks = ("patch_embed.", "blocks.", "norm.", "norm_pre.", "fc_norm.")
    tokens = ("cls_token", "reg_token", "pos_embed")
    return {name: t for name, t in state.items() if name.startswith(blocks) or name in tokens}


def _as_eva(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """DINOv3 is an EVA in timm: keys have no bias (it is masked in the original), and LayerScale has another name."""
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith("attn.qkv.bias"):
            query, _, value = tensor.chunk(3)
            found[name.replace("qkv.bias", "q_bias")], found[name.replace("qkv.bias", "v_bias")] = query, value
        else:
            found[re.sub(r"\.ls([12])\.gamma$", r".gamma_\1", name)] = tensor
    return found


def infer_vit(state: Mapping[str, Tensor]) -> str:
    """The name of the architecture, `timm:NAME`, that a `vit_state` belongs to. Raises UserError for others."""
    channels, _, patch, _ = state[_STEM].shape
    if "blocks.0.gamma_1" in state and patch == 16 and channels in _DINOV3:
        return f"timm:{_DINOV3[channels]}"
    found = _ARCHS.get((channels, patch, "blocks.0.ls1.gamma" in state, "reg_token" in state))
    if found is None:
        raise UserError(
            f"the weights hold a vision transformer of {channels} channels and patches of {patch} pixels whose "
            "architecture cannot be read off them: name it with features.arch=timm:NAME"
        )
    return f"timm:{found}"
