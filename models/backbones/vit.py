"""Features of any model of timm that can give them on a grid: ViT, ConvNeXt, Swin.

`timm` is imported here alone. Shape legend: B images, H W pixels, D channels, h w cells.
"""

import difflib
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ...schemas.errors import UserError
from .base import LEVELS, Backbone, Take


class TimmFeatures(Backbone):
    """A model of timm without its classifier. Its state dict is timm's, under `model.`.

    A model of one stride (ViT) has one level, c5: the patch is its stride. A hierarchical one (ConvNeXt, Swin) has
    the last map of each stride, the coarsest as c5. Class and register tokens are dropped. An input of any size is
    scaled to multiples of the coarsest stride, upwards, and learned positions are interpolated to its grid (bicubic,
    as timm does; rotary ones need nothing).

    Of a ViT, `take` names what is given of block `layer` (0 is the first, -1 the last): its output after the final
    norm (`tokens`), its output (`block`), or the keys of its attention (`keys`, what DINO's users take: LOST,
    section 3.1; TokenCut, section 3.2). `pretrained` fetches timm's own weights.
    """

    stem = ("model.patch_embed.", "model.stem", "model.cls_token", "model.reg_token", "model.pos_embed")

    def __init__(self, name: str, *, layer: int = -1, take: Take = "tokens", pretrained: bool = False) -> None:
        super().__init__()
        self.model: Any = _create(name, pretrained)
        info = list(self.model.feature_info)
        reductions = [int(one["reduction"]) for one in info]
        self._flat = len(set(reductions)) == 1
        if self._flat:
            depth = len(info)
            if not -depth <= layer < depth:
                raise UserError(f"{name} has {depth} blocks: take features.layer in {-depth}..{depth - 1}")
            self._indices = [layer % depth]
            self.strides = {"c5": reductions[0]}
        elif (layer, take) != (-1, "tokens"):
            raise UserError(f"{name} is hierarchical: choose its features with features.level alone")
        else:
            last = {reduction: i for i, reduction in enumerate(reductions)}
            self._indices = [last[reduction] for reduction in sorted(last)][-len(LEVELS) :]
            self.strides = dict(zip(LEVELS[-len(self._indices) :], sorted(last)[-len(LEVELS) :], strict=True))
        self.channels = {level: int(info[i]["num_chs"]) for level, i in zip(self.strides, self._indices, strict=True)}
        self._take: Take = take
        if take == "keys":
            attention = getattr(self.model.blocks[self._indices[0]], "attn", None) if self._flat else None
            if self._indices == [0] or not hasattr(attention, "qkv"):
                raise UserError(f"{name} gives no keys there: take features.take=tokens")
        config = self.model.pretrained_cfg
        self.mean = _scaled(config["mean"])
        self.std = _scaled(config["std"])

    def forward(self, images_B3HW: Tensor, level: str = "c5") -> dict[str, Tensor]:
        """Normalised images to maps [B, D, ceil(H / stride), ceil(W / stride)], up to `level`."""
        images_B3HW = self.stretch(images_B3HW, level)
        names = list(self.strides)
        wanted = self._indices[: names.index(level) + 1]
        if self._take == "keys":
            return {level: self._keys(images_B3HW, wanted[0])}
        options = {"norm": self._take == "tokens"} if self._flat else {}
        maps = self.model.forward_intermediates(
            images_B3HW, indices=wanted, intermediates_only=True, stop_early=True, output_fmt="NCHW", **options
        )
        return dict(zip(names, maps, strict=False))

    def _keys(self, images_B3HW: Tensor, layer: int) -> Tensor:
        """Keys of a block for each cell [B, D, h, w], all heads side by side."""
        before_BDhw = self.model.forward_intermediates(
            images_B3HW, indices=[layer - 1], intermediates_only=True, stop_early=True, output_fmt="NCHW"
        )[0]
        block = self.model.blocks[layer]
        weight, bias = block.attn.qkv.weight, block.attn.qkv.bias
        width = weight.shape[0] // 3
        own = slice(width, 2 * width)
        tokens_BhwD = block.norm1(before_BDhw.permute(0, 2, 3, 1))
        keys_BhwD = F.linear(tokens_BhwD, weight[own], None if bias is None else bias[own])
        return keys_BhwD.permute(0, 3, 1, 2)


def _create(name: str, pretrained: bool) -> Any:
    """A model of timm that takes any size. Raises UserError for a name it lacks or a model without a grid."""
    timm = _timm()
    known = timm.list_models()
    bare = name.partition(".")[0]
    if bare not in known:
        near = difflib.get_close_matches(bare, known, n=3, cutoff=0.4)
        raise UserError(f"timm has no model {name!r}: did you mean {', '.join(near) or 'another'}?")
    try:
        try:
            model = timm.create_model(name, pretrained=pretrained, num_classes=0, dynamic_img_size=True)
        except TypeError:  # not a ViT: takes any size, or refuses the option
            model = timm.create_model(name, pretrained=pretrained, num_classes=0)
    except (RuntimeError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"timm cannot make {name} ({reason}): give its weights as a file, with features.arch=timm:{bare}"
        ) from error
    if not hasattr(model, "forward_intermediates") or not getattr(model, "feature_info", None):
        raise UserError(f"{name} has no features on a grid: take a ViT, ConvNeXt, Swin or ResNet of timm")
    return model


def _timm() -> Any:
    try:
        import timm
    except ImportError:
        raise UserError("models of timm need it installed: pip install 'saliency-prompt[vit]'") from None
    return timm


def _scaled(values: Any) -> tuple[float, float, float]:
    r, g, b = (255.0 * float(value) for value in values)
    return r, g, b
