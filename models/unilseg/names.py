"""Parameter names of the released inference weights of UniLSeg, of CLIP and of Swin, and what they are called here."""

import re
from collections.abc import Mapping

from torch import Tensor

from ..renaming import Rules, rename

_NORMS = tuple((f"norm{i + 1}", f"norms.{i}") for i in range(3))


def _block(theirs: str, ours: str, first: str, second: str) -> Rules:
    """Two attentions, a feed-forward layer and three norms, as DETR's code names them."""
    return [
        (rf"{theirs}\.self_attn\.(.+)", rf"{ours}.{first}.\g<last>"),
        (rf"{theirs}\.multihead_attn\.(.+)", rf"{ours}.{second}.\g<last>"),
        (rf"{theirs}\.linear1\.(.+)", rf"{ours}.feed.0.\g<last>"),
        (rf"{theirs}\.linear2\.(.+)", rf"{ours}.feed.3.\g<last>"),
        *((rf"{theirs}\.{norm}\.(.+)", rf"{ours}.{here}.\g<last>") for norm, here in _NORMS),
    ]


def _named(rules: Rules) -> Rules:
    """The last group of a pattern is called so: how many come before it differs."""
    return [(re.sub(r"\(\.\+\)$", "(?P<last>.+)", pattern), ours) for pattern, ours in rules]


def _swin() -> Rules:
    rules: list[tuple[str, str | None]] = [
        (r"backbone_visual\.patch_embed\.proj\.(.+)", r"visual.features.0.0.\g<last>"),
        (r"backbone_visual\.patch_embed\.norm\.(.+)", r"visual.features.0.2.\g<last>"),
    ]
    for stage in range(4):
        layer = rf"backbone_visual\.layers\.{stage}"
        blocks = rf"{layer}\.blocks\.(\d+)"
        here = rf"visual.features.{2 * stage + 1}.\1"
        rules += [
            (rf"{blocks}\.mlp\.fc1\.(.+)", rf"{here}.mlp.0.\g<last>"),
            (rf"{blocks}\.mlp\.fc2\.(.+)", rf"{here}.mlp.3.\g<last>"),
            (rf"{blocks}\.(.+)", rf"{here}.\g<last>"),
            (rf"{layer}\.downsample\.(.+)", rf"visual.features.{2 * stage + 2}.\g<last>"),
            (rf"backbone_visual\.norm{stage}\.(.+)", rf"visual.norms.{stage}.\g<last>"),
        ]
    return rules


_TOWER = "text.tower.text_model"
_LAYER = rf"{_TOWER}.encoder.layers.\1"
_CLIP: Rules = [
    (r"backbone\.token_embedding\.(.+)", rf"{_TOWER}.embeddings.token_embedding.\g<last>"),
    (r"backbone\.positional_embedding", rf"{_TOWER}.embeddings.position_embedding.weight"),
    (r"backbone\.ln_final\.(.+)", rf"{_TOWER}.final_layer_norm.\g<last>"),
    (r"backbone\.text_projection", "text.tower.text_projection.weight"),
    (r"backbone\.transformer\.resblocks\.(\d+)\.attn\.in_proj_(.+)", rf"{_LAYER}.self_attn.qkv_proj.\g<last>"),
    (r"backbone\.transformer\.resblocks\.(\d+)\.attn\.out_proj\.(.+)", rf"{_LAYER}.self_attn.out_proj.\g<last>"),
    (r"backbone\.transformer\.resblocks\.(\d+)\.ln_1\.(.+)", rf"{_LAYER}.layer_norm1.\g<last>"),
    (r"backbone\.transformer\.resblocks\.(\d+)\.ln_2\.(.+)", rf"{_LAYER}.layer_norm2.\g<last>"),
    (r"backbone\.transformer\.resblocks\.(\d+)\.mlp\.c_fc\.(.+)", rf"{_LAYER}.mlp.fc1.\g<last>"),
    (r"backbone\.transformer\.resblocks\.(\d+)\.mlp\.c_proj\.(.+)", rf"{_LAYER}.mlp.fc2.\g<last>"),
    (r"backbone\.(?:visual\..+|logit_scale|input_resolution|context_length|vocab_size)", None),
]
_DECODER: Rules = [
    (r"fusion\.multihead_attn\.(.+)", r"prefusion.levels.3.attention.\g<last>"),
    (r"fusion_proj\.(.+)", r"prefusion.levels.3.project.\g<last>"),
    (r"all_fusion_module\.(\d)\.multihead_attn\.(.+)", r"prefusion.levels.\1.attention.\g<last>"),
    (r"all_fusion_proj\.(\d)\.(.+)", r"prefusion.levels.\1.project.\g<last>"),
    *(
        rule
        for level in range(4)
        for rule in (
            (rf"pixel_decoder\.adapter_{level + 1}\.(.+)", rf"vision_path.lateral.{level}.\g<last>"),
            (rf"pixel_decoder\.layer_{level + 1}\.(.+)", rf"vision_path.output.{level}.\g<last>"),
            *_block(
                rf"pixel_decoder\.cross_attn_{level + 1}", f"vision_path.blocks.{level}.0", "over_all", "over_words"
            ),
        )
    ),
    (r"pixel_decoder\.mask_features\.(.+)", r"vision_path.last.\g<last>"),
    (r"query_decoder\.visual_proj\.(.+)", r"language_path.visual.\g<last>"),
    (r"query_decoder\.text_proj\.(.+)", r"language_path.sentence.\g<last>"),
    (r"query_decoder\.query_transformer\.decoder\.norm\.(.+)", r"language_path.norm.\g<last>"),
    *_block(
        r"query_decoder\.query_transformer\.decoder\.layers\.(\d+)", r"language_path.layers.\1", "to_self", "to_map"
    ),
]
_RULES = _named([*_swin(), *_CLIP, *_DECODER])


def rename_released(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The released weights under our names, for a model whose parts are all `code`; and the names nobody knows."""
    plain = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    found, unknown = rename(plain, _RULES)
    ours: dict[str, Tensor] = {}
    for name, tensor in found.items():
        if ".qkv_proj." in name:
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                ours[name.replace("qkv_proj", f"{part}_proj")] = piece.clone()
        elif name.endswith("text_projection.weight"):
            ours[name] = tensor.T.clone()
        elif name.endswith("relative_position_index"):
            ours[name] = tensor.flatten()
        else:
            ours[name] = tensor
    return ours, unknown


def rename_parts(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the whole or of an encoder under our names, as far as they are known.

    Known are the released UniLSeg, ours, Swin by torchvision and by its authors, CLIP by OpenAI and by transformers.
    """
    ours: dict[str, Tensor] = {}
    theirs: dict[str, Tensor] = {}
    for name, tensor in state.items():
        plain = name.removeprefix("module.")
        if plain.startswith(("visual.features.", "visual.norms.", "text.tower.", *_OWN)):
            ours[plain] = tensor
        elif plain.startswith("features."):
            ours[f"visual.{plain}"] = tensor
        elif plain.startswith("norm.") and "features.0.0.weight" in state:
            ours[f"visual.norms.3.{plain.removeprefix('norm.')}"] = tensor
        elif plain.startswith(("text_model.", "text_projection.")):
            ours[f"text.tower.{plain}"] = tensor
        elif plain.startswith(("patch_embed.", "layers.", "norm")):
            theirs[f"backbone_visual.{plain}"] = tensor
        elif plain.startswith(_CLIP_PARTS):
            theirs[f"backbone.{plain}"] = tensor
        else:
            theirs[plain] = tensor
    return {**rename_released(theirs)[0], **ours}


_CLIP_PARTS = ("token_embedding.", "positional_embedding", "ln_final.", "text_projection", "transformer.")
_OWN = ("prefusion.", "vision_path.", "language_path.")
