"""Every parameter of every variant has a name in mmdetection's files and in the authors', and no other."""

from collections.abc import Iterator

import pytest
import torch

from saliency_prompt.models.backbones.registry import build_backbone
from saliency_prompt.models.solo.build import build
from saliency_prompt.models.solo.layers import Deformable
from saliency_prompt.models.solo.names import rename, rename_state
from saliency_prompt.models.solo.options import Options
from saliency_prompt.schemas.training.solo import SOLO_OPTIONS, SoloConfig
from tiny_backbone import TinyBackbone

# (head, of mmdetection, of the authors): towers, then convolutions with a bias
TOWERS = {
    "solo": [("mask_convs", "ins_convs"), ("cls_convs", "cate_convs")],
    "decoupled": [("mask_convs_x", "ins_convs_x"), ("mask_convs_y", "ins_convs_y"), ("cls_convs", "cate_convs")],
    "light": [("mask_convs", "ins_convs"), ("cls_convs", "cate_convs")],
    "dynamic": [("kernel_convs", "kernel_convs"), ("cls_convs", "cate_convs")],
}
OUTPUTS = {
    "solo": [("conv_mask_list.{}", "solo_ins_list.{}"), ("conv_cls", "solo_cate")],
    "decoupled": [
        ("conv_mask_list_x.{}", "dsolo_ins_list_x.{}"),
        ("conv_mask_list_y.{}", "dsolo_ins_list_y.{}"),
        ("conv_cls", "dsolo_cate"),
    ],
    "dynamic": [("conv_kernel", "solo_kernel"), ("conv_cls", "solo_cate")],
}
FEATURE = (("mask_head.mask_feature_head", "mask_feat_head"), ("conv_pred", "conv_pred.0"))
VARIANTS = ["solo-tiny", "decoupled-solo-tiny", "decoupled-solo-light-tiny", "solov2-tiny", "solov2-light-tiny"]


def layer(name: str, deformed: bool = False) -> Iterator[str]:
    yield f"{name}.conv.weight"
    yield from (f"{name}.gn.{part}" for part in ("weight", "bias"))
    if deformed:
        yield from (f"{name}.conv.conv_offset.{part}" for part in ("weight", "bias"))


def peers(options: Options, style: int) -> Iterator[str]:
    """Names of a whole file; style 0 is mmdetection's, 1 the authors'."""
    head = ("mask_head.", "bbox_head.")[style]
    for kind in ("lateral_convs", "fpn_convs"):
        for number in range(4):
            yield from (f"neck.{kind}.{number}.conv.{part}" for part in ("weight", "bias"))
    for names in TOWERS["light" if options.shared_tower else options.head]:
        for number in range(options.depth):
            last = number == options.depth - 1
            yield from layer(f"{head}{names[style]}.{number}", options.deform == "last" and last)
    for names in OUTPUTS[options.head]:
        for number in range(5 if "{}" in names[style] else 1):
            yield from (f"{head}{names[style].format(number)}.{part}" for part in ("weight", "bias"))
    if options.head == "dynamic":
        start, last_layer = FEATURE[0][style], FEATURE[1][style]
        for level, layers in enumerate((1, 1, 2, 3)):
            for number in range(layers):
                yield from layer(f"{start}.convs_all_levels.{level}.conv{number}")
        yield from layer(f"{start}.{last_layer}")


@pytest.mark.parametrize("style", [0, 1])
@pytest.mark.parametrize("deform", ["none", "last"])
@pytest.mark.parametrize("name", VARIANTS)
def test_names_are_those_of_the_model(name: str, deform: str, style: int) -> None:
    config = SoloConfig.model_validate({**SOLO_OPTIONS[name], "deform": deform})
    model = build(TinyBackbone(), 3, config)
    wanted = {key for key in model.state_dict() if not key.startswith("backbone.")}
    names = list(peers(model.options, style))
    renamed = [rename(one, model.options) for one in names]
    assert len(renamed) == len(set(renamed))
    assert set(renamed) == wanted


def test_what_a_model_lacks_is_listed() -> None:
    state = {"bbox_head.solo_kernel.weight": torch.zeros(1), "rpn_head.conv.weight": torch.zeros(1)}
    renamed, unknown = rename_state(state, Options(head="solo"))
    assert renamed == {}
    assert unknown == ["bbox_head.solo_kernel.weight", "rpn_head.conv.weight"]


@pytest.mark.parametrize("channels", [27, 18])
@pytest.mark.parametrize("offset", ["conv2.conv_offset", "conv2_offset", "conv2.conv_offset_mask"])
def test_deformable_weights_keep_what_they_compute(offset: str, channels: int) -> None:
    """Peers modulate by sigmoid, or not at all; here it is 2 sigmoid."""
    from torchvision.ops import deform_conv2d

    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 3, 3, 3, generator=generator)
    by, bias = torch.randn(channels, 3, 3, 3, generator=generator) / 5, torch.randn(channels, generator=generator)
    prefix = "backbone.layer2.0."
    state = {
        f"{prefix}conv2.weight": weight,
        f"{prefix}{offset}.weight": by,
        f"{prefix}{offset}.bias": bias,
    }
    renamed, unknown = rename_state(state, Options())
    assert unknown == []
    ours = Deformable(torch.nn.Conv2d(3, 4, 3, padding=1, bias=False))
    ours.load_state_dict({name.removeprefix(f"{prefix}conv2."): value for name, value in renamed.items()})
    images = torch.randn(1, 3, 7, 8, generator=generator)
    moved = torch.nn.functional.conv2d(images, by, bias, padding=1)
    mask = moved[:, 18:].sigmoid() if channels == 27 else None
    theirs = deform_conv2d(images, moved[:, :18], weight, padding=1, mask=mask)
    torch.testing.assert_close(ours(images), theirs, atol=1e-5, rtol=1e-4)


def test_deformed_backbones_have_torchvisions_names_and_offsets() -> None:
    config = SoloConfig.model_validate({**SOLO_OPTIONS["solov2-light-tiny"], "deform_backbone": True})
    model = build(build_backbone("resnet18"), 3, config)
    names = {key for key in model.state_dict() if key.startswith("backbone.")}
    theirs = {name.replace(".offset.", ".conv_offset.") for name in names}
    assert {rename(name, model.options) for name in theirs} == names
