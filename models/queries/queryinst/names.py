"""Names of QueryInst's tensors in the library that publishes its weights."""

from ...renaming import Rules

_END = r"(weight|bias)"
_BOX = r"roi_head\.bbox_head\.(\d+)"
_MASK = r"roi_head\.mask_head\.(\d+)"
_NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"

# mmdetection 2 and 3, QueryInst
MMDETECTION: Rules = [
    (r"(backbone\..+)", r"\1"),
    (rf"neck\.lateral_convs\.(\d)\.conv\.{_END}", r"pyramid.inner_blocks.\1.0.\2"),
    (rf"neck\.fpn_convs\.(\d)\.conv\.{_END}", r"pyramid.layer_blocks.\1.0.\2"),
    (r"rpn_head\.init_proposal_bboxes\.weight", "query_boxes"),
    (r"rpn_head\.init_proposal_features\.weight", "query_features"),
    (rf"{_BOX}\.fc_cls\.{_END}", r"stages.\1.classes.\2"),
    (rf"{_BOX}\.fc_reg\.{_END}", r"stages.\1.deltas.\2"),
    (rf"{_BOX}\.attention\.attn\.in_proj_{_END}", r"stages.\1.attention.in_proj_\2"),
    (rf"{_BOX}\.attention\.attn\.out_proj\.{_END}", r"stages.\1.attention.out_proj.\2"),
    (rf"{_BOX}\.attention_norm\.{_END}", r"stages.\1.attention_norm.\2"),
    (rf"{_BOX}\.instance_interactive_conv\.dynamic_layer\.{_END}", r"stages.\1.dynamic.weights.\2"),
    (rf"{_BOX}\.instance_interactive_conv\.norm_(in|out)\.{_END}", r"stages.\1.dynamic.norm_\2.\3"),
    (rf"{_BOX}\.instance_interactive_conv\.fc_layer\.{_END}", r"stages.\1.region.\2"),
    (rf"{_BOX}\.instance_interactive_conv\.fc_norm\.{_END}", r"stages.\1.region_norm.\2"),
    (rf"{_BOX}\.instance_interactive_conv_norm\.{_END}", r"stages.\1.update_norm.\2"),
    (rf"{_BOX}\.ffn\.layers\.0\.0\.{_END}", r"stages.\1.feed_forward.0.\2"),
    (rf"{_BOX}\.ffn\.layers\.1\.{_END}", r"stages.\1.feed_forward.2.\2"),
    (rf"{_BOX}\.ffn_norm\.{_END}", r"stages.\1.feed_forward_norm.\2"),
    # theirs are one row of Linear, LayerNorm, ReLU, Linear, ...
    *(
        (rf"{_BOX}\.{theirs}\.{3 * layer + part}\.{_END}", rf"stages.\1.{ours}.{layer}.{part}.\2")
        for theirs, ours, layers in (("cls_fcs", "class_branch", 1), ("reg_fcs", "box_branch", 3))
        for layer in range(layers)
        for part in range(2)
    ),
    (rf"{_MASK}\.convs\.(\d)\.conv\.{_END}", r"mask_heads.\1.convs.\2.0.\3"),
    (rf"{_MASK}\.convs\.(\d)\.bn\.{_NORM}", r"mask_heads.\1.convs.\2.1.\3"),
    (rf"{_MASK}\.upsample\.{_END}", r"mask_heads.\1.enlarge.\2"),
    (rf"{_MASK}\.conv_logits\.{_END}", r"mask_heads.\1.logits.\2"),
    (rf"{_MASK}\.instance_interactive_conv\.dynamic_layer\.{_END}", r"mask_heads.\1.dynamic.weights.\2"),
    (rf"{_MASK}\.instance_interactive_conv\.norm_(in|out)\.{_END}", r"mask_heads.\1.dynamic.norm_\2.\3"),
]
