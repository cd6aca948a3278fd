"""Tensors of one public program under the names of another, written down from what both publish."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

# From transformers' names to those of Mask2Former's authors, on detectron2. The first pattern that fits decides.
_BLOCK = r"model\.pixel_level_module\.encoder\.encoder\.stages\.(\d)\.layers\.(\d+)"
_STEM = r"model\.pixel_level_module\.encoder\.embedder\.embedder"
_PIXELS, _THEIR_PIXELS = r"model\.pixel_level_module\.decoder", "sem_seg_head.pixel_decoder"
_LAYER, _THEIRS = r"model\.transformer_module\.decoder\.layers\.(\d+)", "sem_seg_head.predictor"
_CELLS, _THEIR_CELLS = rf"{_PIXELS}\.encoder\.layers\.(\d+)", rf"{_THEIR_PIXELS}.transformer.encoder.layers.\1"
_SAME = ("sampling_offsets", "attention_weights", "value_proj", "output_proj")
_TABLE = (
    (rf"{_STEM}\.convolution\.(.+)", r"backbone.stem.conv1.\1"),
    (rf"{_STEM}\.normalization\.(.+)", r"backbone.stem.conv1.norm.\1"),
    *((rf"{_BLOCK}\.layer\.{i}\.convolution\.(.+)", rf"backbone.res\1.\2.conv{i + 1}.\3") for i in range(3)),
    *((rf"{_BLOCK}\.layer\.{i}\.normalization\.(.+)", rf"backbone.res\1.\2.conv{i + 1}.norm.\3") for i in range(3)),
    (rf"{_BLOCK}\.shortcut\.convolution\.(.+)", r"backbone.res\1.\2.shortcut.\3"),
    (rf"{_BLOCK}\.shortcut\.normalization\.(.+)", r"backbone.res\1.\2.shortcut.norm.\3"),
    (rf"{_PIXELS}\.level_embed", f"{_THEIR_PIXELS}.transformer.level_embed"),
    (rf"{_PIXELS}\.input_projections\.(.+)", rf"{_THEIR_PIXELS}.input_proj.\1"),
    *((rf"{_CELLS}\.self_attn\.{name}\.(.+)", rf"{_THEIR_CELLS}.self_attn.{name}.\2") for name in _SAME),
    (rf"{_CELLS}\.self_attn_layer_norm\.(.+)", rf"{_THEIR_CELLS}.norm1.\2"),
    (rf"{_CELLS}\.fc(\d)\.(.+)", rf"{_THEIR_CELLS}.linear\2.\3"),
    (rf"{_CELLS}\.final_layer_norm\.(.+)", rf"{_THEIR_CELLS}.norm2.\2"),
    (rf"{_PIXELS}\.(adapter|layer)_1\.0\.(.+)", rf"{_THEIR_PIXELS}.\1_1.\2"),
    (rf"{_PIXELS}\.(adapter|layer)_1\.1\.(.+)", rf"{_THEIR_PIXELS}.\1_1.norm.\2"),
    (rf"{_PIXELS}\.mask_projection\.(.+)", rf"{_THEIR_PIXELS}.mask_features.\1"),
    (r"model\.transformer_module\.queries_embedder\.weight", f"{_THEIRS}.query_embed.weight"),
    (r"model\.transformer_module\.queries_features\.weight", f"{_THEIRS}.query_feat.weight"),
    (r"model\.transformer_module\.level_embed\.weight", f"{_THEIRS}.level_embed.weight"),
    (rf"{_LAYER}\.cross_attn\.(.+)", rf"{_THEIRS}.transformer_cross_attention_layers.\1.multihead_attn.\2"),
    (rf"{_LAYER}\.cross_attn_layer_norm\.(.+)", rf"{_THEIRS}.transformer_cross_attention_layers.\1.norm.\2"),
    (
        rf"{_LAYER}\.self_attn\.([qkv])_proj\.(.+)",
        rf"{_THEIRS}.transformer_self_attention_layers.\1.self_attn.in_proj_\3#\2",
    ),
    (rf"{_LAYER}\.self_attn\.(.+)", rf"{_THEIRS}.transformer_self_attention_layers.\1.self_attn.\2"),
    (rf"{_LAYER}\.self_attn_layer_norm\.(.+)", rf"{_THEIRS}.transformer_self_attention_layers.\1.norm.\2"),
    (rf"{_LAYER}\.fc(\d)\.(.+)", rf"{_THEIRS}.transformer_ffn_layers.\1.linear\2.\3"),
    (rf"{_LAYER}\.final_layer_norm\.(.+)", rf"{_THEIRS}.transformer_ffn_layers.\1.norm.\2"),
    (r"model\.transformer_module\.decoder\.layernorm\.(.+)", rf"{_THEIRS}.decoder_norm.\1"),
    (
        r"model\.transformer_module\.decoder\.mask_predictor\.mask_embedder\.(\d)\.0\.(.+)",
        rf"{_THEIRS}.mask_embed.layers.\1.\2",
    ),
    (r"class_predictor\.(.+)", rf"{_THEIRS}.class_embed.\1"),
    (r"criterion\.empty_weight", "criterion.empty_weight"),
)


def mask2former_of_detectron2(transformers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of `transformers` as the authors' program would have written it.

    Stages of the backbone count from 2 there, and the self-attention's three projections lie in one tensor.
    """
    found: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in transformers.items():
        match, pattern = next((m, theirs) for ours, theirs in _TABLE if (m := re.fullmatch(ours, name)))
        theirs, _, part = match.expand(pattern).partition("#")
        theirs = re.sub(r"^backbone\.res(\d)\.", lambda stage: f"backbone.res{int(stage[1]) + 2}.", theirs)
        if part:
            parts.setdefault(theirs, {})[part] = tensor
        else:
            assert theirs not in found
            found[theirs] = tensor
    return found | {name: torch.cat([one[part] for part in "qkv"]) for name, one in parts.items()}
