"""Features of any model that transformers knows as a backbone: DINOv2, Swin, ConvNeXt, ResNet and others.

`transformers` is imported here alone among backbones. Shape legend: B images, H W pixels, D channels, h w cells.
"""

from typing import Any

import torch
from torch import Tensor

from ...schemas.errors import UserError
from .base import LEVELS, Backbone

_PROBE = 224  # pixels; all usual strides divide it
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class TransformersFeatures(Backbone):
    """A model of transformers without a head, by its name on the Hub or a folder that `save_pretrained` wrote.

    Its state dict is transformers' under `model.`. A model of one stride has one level, c5: stage `layer` (0 is the
    first, -1 the last), normalised as transformers does it. A hierarchical one has the last map of each stride, the
    coarsest as c5. An input of any size is scaled to multiples of the coarsest stride, upwards. Mean and deviation are
    those of the model's image processor, or ImageNet's. `pretrained` takes its weights too, else they are fresh.
    """

    stem = ("model.embeddings.",)

    def __init__(self, name: str, *, layer: int = -1, pretrained: bool = False) -> None:
        super().__init__()
        library = _transformers()
        config = _described(library, name)
        stages = list(range(1, len(config.stage_names)))
        kind, cells = _probe(library, config, stages)
        strides = [_PROBE // side for _, side in cells]
        if len(set(strides)) == 1:
            if not -len(stages) <= layer < len(stages):
                raise UserError(
                    f"{name} has {len(stages)} stages: take features.layer in {-len(stages)}..{len(stages) - 1}"
                )
            chosen = [layer % len(stages)]
        elif layer != -1:
            raise UserError(f"{name} is hierarchical: choose its features with features.level alone")
        else:
            last = {stride: i for i, stride in enumerate(strides)}
            chosen = [last[stride] for stride in sorted(last)][-len(LEVELS) :]
        names = LEVELS[-len(chosen) :]
        self.strides = {level: strides[i] for level, i in zip(names, chosen, strict=True)}
        self.channels = {level: cells[i][0] for level, i in zip(names, chosen, strict=True)}
        indices = [stages[i] for i in chosen]
        if pretrained:
            self.model: Any = kind.from_pretrained(name, out_indices=indices)  # AutoBackbone's own refuses folders
        else:
            config.out_indices = indices
            self.model = library.AutoBackbone.from_config(config)
        self.mean, self.std = _normalisation(library, name)

    def forward(self, images_B3HW: Tensor, level: str = "c5") -> dict[str, Tensor]:
        """Normalised images to maps [B, D, ceil(H / stride), ceil(W / stride)], up to `level`."""
        images_B3HW = self.stretch(images_B3HW, level)
        maps = dict(zip(self.strides, self.model(images_B3HW).feature_maps, strict=True))
        return {name: maps[name] for name in self.levels[: self.levels.index(level) + 1]}


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise UserError("models of transformers need it installed: pip install 'saliency-prompt[annotate]'") from None
    return transformers


def _described(library: Any, name: str) -> Any:
    try:
        config = library.AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"transformers cannot find {name} ({reason}): name one of its Hub, or a folder that save_pretrained wrote"
        ) from error
    if not hasattr(config, "stage_names"):
        raise UserError(
            f"{name} is a {config.model_type}, of which transformers has no backbone: take a DINOv2, Swin or ConvNeXt"
        )
    return config


def _probe(library: Any, config: Any, stages: list[int]) -> tuple[Any, list[tuple[int, int]]]:
    """The class of the model; channels and side of each stage's map of a square image, found without memory for it."""
    config.out_indices = stages
    try:
        with torch.device("meta"), torch.no_grad():
            model = library.AutoBackbone.from_config(config)
            maps = model(torch.zeros(1, 3, _PROBE, _PROBE)).feature_maps
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"transformers' {config.model_type} gives no features on a grid ({reason}): take another"
        ) from error
    return type(model), [(int(one.shape[1]), int(one.shape[2])) for one in maps]


def _normalisation(library: Any, name: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    try:
        processor = library.AutoImageProcessor.from_pretrained(name)
        mean, std = processor.image_mean, processor.image_std
    except (OSError, ValueError, AttributeError, ImportError):
        mean, std = _IMAGENET
    return _scaled(mean), _scaled(std)


def _scaled(values: Any) -> tuple[float, float, float]:
    r, g, b = (255.0 * float(value) for value in values)
    return r, g, b
