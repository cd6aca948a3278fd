"""Names of K-Net's tensors in its authors' repository (on mmdetection 2)."""

from ...renaming import Rules

_END = r"(weight|bias)"
_LOCALISE = r"rpn_head\.localization_fpn"
_STAGE = r"roi_head\.mask_head\.(\d+)"
_UPDATE = rf"{_STAGE}\.kernel_update_conv"


def _conv(theirs: str, ours: str) -> Rules:
    """A convolution with its norm."""
    return [
        (rf"{theirs}\.conv\.weight", f"{ours}.0.weight"),
        (rf"{theirs}\.gn\.weight", f"{ours}.1.weight"),
        (rf"{theirs}\.gn\.bias", f"{ours}.1.bias"),
    ]


# their initial kernels are a convolution's weight [N, C, 1, 1]: flatten all but the first axis
OFFICIAL: Rules = [
    (r"(backbone\..+)", r"\1"),
    (rf"neck\.lateral_convs\.(\d)\.conv\.{_END}", r"pyramid.inner_blocks.\1.0.\2"),
    (rf"neck\.fpn_convs\.(\d)\.conv\.{_END}", r"pyramid.layer_blocks.\1.0.\2"),
    *_conv(rf"{_LOCALISE}\.convs_all_levels\.0\.conv0", "localisation.p2"),
    *_conv(rf"{_LOCALISE}\.convs_all_levels\.1\.conv0", "localisation.p3"),
    *_conv(rf"{_LOCALISE}\.convs_all_levels\.2\.conv(\d)", r"localisation.p4.\1"),
    *_conv(rf"{_LOCALISE}\.convs_all_levels\.3\.conv(\d)", r"localisation.p5.\1"),
    *_conv(rf"{_LOCALISE}\.conv_pred", "localisation.localisation.0"),
    *_conv(r"rpn_head\.loc_convs\.0", "localisation.localisation.1"),
    *_conv(rf"{_LOCALISE}\.aux_convs\.0", "localisation.semantic.0"),
    *_conv(r"rpn_head\.seg_convs\.0", "localisation.semantic.1"),
    (r"rpn_head\.init_kernels\.weight", "kernels"),
    (rf"rpn_head\.conv_seg\.{_END}", r"semantic.\1"),
    (rf"{_STAGE}\.feat_transform\.conv\.{_END}", r"stages.\1.project.\2"),
    (rf"{_UPDATE}\.dynamic_layer\.{_END}", r"stages.\1.update.from_object.\2"),
    (rf"{_UPDATE}\.input_layer\.{_END}", r"stages.\1.update.from_kernel.\2"),
    (rf"{_UPDATE}\.update_gate\.{_END}", r"stages.\1.update.object_gate.0.\2"),
    (rf"{_UPDATE}\.norm_in\.{_END}", r"stages.\1.update.object_gate.1.\2"),
    (rf"{_UPDATE}\.input_gate\.{_END}", r"stages.\1.update.kernel_gate.0.\2"),
    (rf"{_UPDATE}\.input_norm_in\.{_END}", r"stages.\1.update.kernel_gate.1.\2"),
    (rf"{_UPDATE}\.norm_out\.{_END}", r"stages.\1.update.object_norm.\2"),
    (rf"{_UPDATE}\.input_norm_out\.{_END}", r"stages.\1.update.kernel_norm.\2"),
    (rf"{_UPDATE}\.fc_layer\.{_END}", r"stages.\1.update.out.0.\2"),
    (rf"{_UPDATE}\.fc_norm\.{_END}", r"stages.\1.update.out.1.\2"),
    (rf"{_STAGE}\.attention\.attn\.in_proj_{_END}", r"stages.\1.attention.in_proj_\2"),
    (rf"{_STAGE}\.attention\.attn\.out_proj\.{_END}", r"stages.\1.attention.out_proj.\2"),
    (rf"{_STAGE}\.attention_norm\.{_END}", r"stages.\1.attention_norm.\2"),
    (rf"{_STAGE}\.ffn\.layers\.0\.0\.{_END}", r"stages.\1.feed_forward.0.\2"),
    (rf"{_STAGE}\.ffn\.layers\.1\.{_END}", r"stages.\1.feed_forward.2.\2"),
    (rf"{_STAGE}\.ffn_norm\.{_END}", r"stages.\1.feed_forward_norm.\2"),
    (rf"{_STAGE}\.cls_fcs\.([01])\.{_END}", r"stages.\1.class_branch.\2.\3"),
    (rf"{_STAGE}\.mask_fcs\.([01])\.{_END}", r"stages.\1.mask_branch.\2.\3"),
    (rf"{_STAGE}\.fc_cls\.{_END}", r"stages.\1.classes.\2"),
    (rf"{_STAGE}\.fc_mask\.{_END}", r"stages.\1.mask_kernel.\2"),
]
