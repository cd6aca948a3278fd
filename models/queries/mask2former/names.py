"""Names of Mask2Former's tensors in the libraries that publish its weights."""

from ...renaming import Rules

_NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
_END = r"(weight|bias)"
_PIXELS = r"model\.pixel_level_module\.decoder"
_RESNET = r"model\.pixel_level_module\.encoder"
_QUERIES = r"model\.transformer_module"


def _stage(number: int) -> Rules:
    block = rf"{_RESNET}\.encoder\.stages\.{number}\.layers\.(\d+)"
    layer = rf"backbone.layer{number + 1}.\1"
    return [
        (rf"{block}\.layer\.0\.convolution\.weight", rf"{layer}.conv1.weight"),
        (rf"{block}\.layer\.0\.normalization\.{_NORM}", rf"{layer}.bn1.\2"),
        (rf"{block}\.layer\.1\.convolution\.weight", rf"{layer}.conv2.weight"),
        (rf"{block}\.layer\.1\.normalization\.{_NORM}", rf"{layer}.bn2.\2"),
        (rf"{block}\.layer\.2\.convolution\.weight", rf"{layer}.conv3.weight"),
        (rf"{block}\.layer\.2\.normalization\.{_NORM}", rf"{layer}.bn3.\2"),
        (rf"{block}\.shortcut\.convolution\.weight", rf"{layer}.downsample.0.weight"),
        (rf"{block}\.shortcut\.normalization\.{_NORM}", rf"{layer}.downsample.1.\2"),
    ]


# Hugging Face transformers, Mask2FormerForUniversalSegmentation on a ResNet
TRANSFORMERS: Rules = [
    (rf"{_RESNET}\.embedder\.embedder\.convolution\.weight", "backbone.conv1.weight"),
    (rf"{_RESNET}\.embedder\.embedder\.normalization\.{_NORM}", r"backbone.bn1.\1"),
    *(rule for number in range(4) for rule in _stage(number)),
    (rf"{_PIXELS}\.level_embed", "pixel_decoder.level_embed"),
    (rf"{_PIXELS}\.input_projections\.(\d)\.([01])\.{_END}", r"pixel_decoder.projections.\1.\2.\3"),
    (
        rf"{_PIXELS}\.encoder\.layers\.(\d+)\.self_attn\.sampling_offsets\.{_END}",
        r"pixel_decoder.layers.\1.attention.offsets.\2",
    ),
    (
        rf"{_PIXELS}\.encoder\.layers\.(\d+)\.self_attn\.attention_weights\.{_END}",
        r"pixel_decoder.layers.\1.attention.weights.\2",
    ),
    (
        rf"{_PIXELS}\.encoder\.layers\.(\d+)\.self_attn\.value_proj\.{_END}",
        r"pixel_decoder.layers.\1.attention.value.\2",
    ),
    (
        rf"{_PIXELS}\.encoder\.layers\.(\d+)\.self_attn\.output_proj\.{_END}",
        r"pixel_decoder.layers.\1.attention.out.\2",
    ),
    (
        rf"{_PIXELS}\.encoder\.layers\.(\d+)\.self_attn_layer_norm\.{_END}",
        r"pixel_decoder.layers.\1.attention_norm.\2",
    ),
    (rf"{_PIXELS}\.encoder\.layers\.(\d+)\.fc1\.{_END}", r"pixel_decoder.layers.\1.feed_forward.0.\2"),
    (rf"{_PIXELS}\.encoder\.layers\.(\d+)\.fc2\.{_END}", r"pixel_decoder.layers.\1.feed_forward.2.\2"),
    (
        rf"{_PIXELS}\.encoder\.layers\.(\d+)\.final_layer_norm\.{_END}",
        r"pixel_decoder.layers.\1.feed_forward_norm.\2",
    ),
    (rf"{_PIXELS}\.adapter_1\.([01])\.{_END}", r"pixel_decoder.lateral.\1.\2"),
    (rf"{_PIXELS}\.layer_1\.([01])\.{_END}", r"pixel_decoder.fused.\1.\2"),
    (rf"{_PIXELS}\.mask_projection\.{_END}", r"pixel_decoder.masks.\1"),
    (rf"{_QUERIES}\.queries_embedder\.weight", "query_places"),
    (rf"{_QUERIES}\.queries_features\.weight", "query_features"),
    (rf"{_QUERIES}\.level_embed\.weight", "level_embed"),
    (
        rf"{_QUERIES}\.decoder\.layers\.(\d+)\.cross_attn\.in_proj_{_END}",
        r"layers.\1.cross_attention.in_proj_\2",
    ),
    (
        rf"{_QUERIES}\.decoder\.layers\.(\d+)\.cross_attn\.out_proj\.{_END}",
        r"layers.\1.cross_attention.out_proj.\2",
    ),
    (rf"{_QUERIES}\.decoder\.layers\.(\d+)\.cross_attn_layer_norm\.{_END}", r"layers.\1.cross_attention_norm.\2"),
    *(
        (
            rf"{_QUERIES}\.decoder\.layers\.(\d+)\.self_attn\.{part}_proj\.{_END}",
            rf"layers.\1.self_attention.in_proj_\2#{place}",
        )
        for place, part in enumerate("qkv")
    ),
    (rf"{_QUERIES}\.decoder\.layers\.(\d+)\.self_attn\.out_proj\.{_END}", r"layers.\1.self_attention.out_proj.\2"),
    (rf"{_QUERIES}\.decoder\.layers\.(\d+)\.self_attn_layer_norm\.{_END}", r"layers.\1.self_attention_norm.\2"),
    (rf"{_QUERIES}\.decoder\.layers\.(\d+)\.fc1\.{_END}", r"layers.\1.feed_forward.0.\2"),
    (rf"{_QUERIES}\.decoder\.layers\.(\d+)\.fc2\.{_END}", r"layers.\1.feed_forward.2.\2"),
    (rf"{_QUERIES}\.decoder\.layers\.(\d+)\.final_layer_norm\.{_END}", r"layers.\1.feed_forward_norm.\2"),
    (rf"{_QUERIES}\.decoder\.layernorm\.{_END}", r"head.norm.\1"),
    *(
        (
            rf"{_QUERIES}\.decoder\.mask_predictor\.mask_embedder\.{number}\.0\.{_END}",
            rf"head.mask_embed.{2 * number}.\1",
        )
        for number in range(3)
    ),
    (rf"class_predictor\.{_END}", r"head.classes.\1"),
    (r"criterion\.empty_weight", None),
]

_PREDICTOR = r"sem_seg_head\.predictor"
_DEFORMABLE = r"sem_seg_head\.pixel_decoder\.transformer"
_CELLS = rf"{_DEFORMABLE}\.encoder\.layers\.(\d+)"


def _residual(number: int) -> Rules:
    block, layer = rf"backbone\.res{number + 1}\.(\d+)", rf"backbone.layer{number}.\1"
    return [
        (rf"{block}\.conv(\d)\.weight", rf"{layer}.conv\2.weight"),
        (rf"{block}\.conv(\d)\.norm\.{_NORM}", rf"{layer}.bn\2.\3"),
        (rf"{block}\.shortcut\.weight", rf"{layer}.downsample.0.weight"),
        (rf"{block}\.shortcut\.norm\.{_NORM}", rf"{layer}.downsample.1.\2"),
    ]


# The authors' own, on detectron2 with a ResNet whose stride is on the 3x3 convolution
DETECTRON2: Rules = [
    (r"backbone\.stem\.conv1\.weight", "backbone.conv1.weight"),
    (rf"backbone\.stem\.conv1\.norm\.{_NORM}", r"backbone.bn1.\1"),
    *(rule for number in range(1, 5) for rule in _residual(number)),
    (rf"sem_seg_head\.pixel_decoder\.input_proj\.(\d)\.([01])\.{_END}", r"pixel_decoder.projections.\1.\2.\3"),
    (rf"{_DEFORMABLE}\.level_embed", "pixel_decoder.level_embed"),
    *(
        (rf"{_CELLS}\.self_attn\.{theirs}\.{_END}", rf"pixel_decoder.layers.\1.attention.{ours}.\2")
        for theirs, ours in (
            ("sampling_offsets", "offsets"),
            ("attention_weights", "weights"),
            ("value_proj", "value"),
            ("output_proj", "out"),
        )
    ),
    *(
        (rf"{_CELLS}\.{theirs}\.{_END}", rf"pixel_decoder.layers.\1.{ours}.\2")
        for theirs, ours in (
            ("norm1", "attention_norm"),
            ("linear1", "feed_forward.0"),
            ("linear2", "feed_forward.2"),
            ("norm2", "feed_forward_norm"),
        )
    ),
    *(
        rule
        for theirs, ours in (("adapter_1", "lateral"), ("layer_1", "fused"))
        for rule in (
            (rf"sem_seg_head\.pixel_decoder\.{theirs}\.weight", f"pixel_decoder.{ours}.0.weight"),
            (rf"sem_seg_head\.pixel_decoder\.{theirs}\.norm\.{_END}", rf"pixel_decoder.{ours}.1.\1"),
        )
    ),
    (rf"sem_seg_head\.pixel_decoder\.mask_features\.{_END}", r"pixel_decoder.masks.\1"),
    (rf"{_PREDICTOR}\.(?:query_feat|static_query)\.weight", "query_features"),
    (rf"{_PREDICTOR}\.query_embed\.weight", "query_places"),
    (rf"{_PREDICTOR}\.level_embed\.weight", "level_embed"),
    *(
        rule
        for theirs, inside, ours in (
            ("cross", "multihead_attn", "cross_attention"),
            ("self", "self_attn", "self_attention"),
        )
        for rule in (
            (
                rf"{_PREDICTOR}\.transformer_{theirs}_attention_layers\.(\d+)\.{inside}\.in_proj_{_END}",
                rf"layers.\1.{ours}.in_proj_\2",
            ),
            (
                rf"{_PREDICTOR}\.transformer_{theirs}_attention_layers\.(\d+)\.{inside}\.out_proj\.{_END}",
                rf"layers.\1.{ours}.out_proj.\2",
            ),
            (
                rf"{_PREDICTOR}\.transformer_{theirs}_attention_layers\.(\d+)\.norm\.{_END}",
                rf"layers.\1.{ours}_norm.\2",
            ),
        )
    ),
    *(
        (rf"{_PREDICTOR}\.transformer_ffn_layers\.(\d+)\.{theirs}\.{_END}", rf"layers.\1.{ours}.\2")
        for theirs, ours in (
            ("linear1", "feed_forward.0"),
            ("linear2", "feed_forward.2"),
            ("norm", "feed_forward_norm"),
        )
    ),
    (rf"{_PREDICTOR}\.decoder_norm\.{_END}", r"head.norm.\1"),
    (rf"{_PREDICTOR}\.class_embed\.{_END}", r"head.classes.\1"),
    *(
        (rf"{_PREDICTOR}\.mask_embed\.layers\.{number}\.{_END}", rf"head.mask_embed.{2 * number}.\1")
        for number in range(3)
    ),
    (r"criterion\.empty_weight", None),
]
