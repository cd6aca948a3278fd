"""The authors' names, written down from their program, lead to every tensor of ours."""

import torch

from saliency_prompt.models.backbones.registry import build_backbone
from saliency_prompt.models.queries.mask2former.model import Mask2Former
from saliency_prompt.models.queries.mask2former.names import DETECTRON2
from saliency_prompt.models.renaming import rename

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
BOTH = ("weight", "bias")


def published_names() -> list[str]:
    names = ["backbone.stem.conv1.weight", *(f"backbone.stem.conv1.norm.{n}" for n in NORM)]
    for stage, blocks in zip((2, 3, 4, 5), (3, 4, 6, 3), strict=True):
        for block in range(blocks):
            convs = ["conv1", "conv2", "conv3"] + (["shortcut"] if block == 0 else [])
            for conv in convs:
                names += [f"backbone.res{stage}.{block}.{conv}.weight"]
                names += [f"backbone.res{stage}.{block}.{conv}.norm.{n}" for n in NORM]
    pixels, queries = "sem_seg_head.pixel_decoder", "sem_seg_head.predictor"
    names += [f"{pixels}.input_proj.{i}.{part}.{b}" for i in range(3) for part in range(2) for b in BOTH]
    names += [f"{pixels}.transformer.level_embed", "criterion.empty_weight"]
    inside = [f"self_attn.{n}" for n in ("sampling_offsets", "attention_weights", "value_proj", "output_proj")]
    inside += ["norm1", "linear1", "linear2", "norm2"]
    names += [f"{pixels}.transformer.encoder.layers.{i}.{n}.{b}" for i in range(2) for n in inside for b in BOTH]
    for conv in ("adapter_1", "layer_1"):
        names += [f"{pixels}.{conv}.weight", *(f"{pixels}.{conv}.norm.{b}" for b in BOTH)]
    names += [f"{pixels}.mask_features.{b}" for b in BOTH]
    names += [f"{queries}.{n}.weight" for n in ("query_feat", "query_embed", "level_embed")]
    for i in range(3):
        for kind, attention in (("self", "self_attn"), ("cross", "multihead_attn")):
            layer = f"{queries}.transformer_{kind}_attention_layers.{i}"
            names += [f"{layer}.{attention}.in_proj_{b}" for b in BOTH]
            names += [f"{layer}.{part}.{b}" for part in (f"{attention}.out_proj", "norm") for b in BOTH]
        names += [f"{queries}.transformer_ffn_layers.{i}.{n}.{b}" for n in ("linear1", "linear2", "norm") for b in BOTH]
    names += [f"{queries}.{n}.{b}" for n in ("decoder_norm", "class_embed") for b in BOTH]
    return names + [f"{queries}.mask_embed.layers.{i}.{b}" for i in range(3) for b in BOTH]


def test_every_tensor_has_a_name() -> None:
    model = Mask2Former(
        build_backbone("resnet50"), 2, num_queries=3, channels=32, hidden=32, stages=3, encoder_stages=2
    )
    found, unknown = rename({name: torch.zeros(1) for name in published_names()}, DETECTRON2)
    assert unknown == []
    assert set(found) == set(model.state_dict())
