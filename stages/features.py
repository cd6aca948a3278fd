"""Frozen backbone features of a batch of equally sized images, and what producers that stand on them share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..schemas.errors import UserError
from ..schemas.labels.saliency import FeaturesConfig
from .backbone import LoadedBackbone, load_backbone
from .decode import DecodedImage
from .device import DTYPES
from .pixels import PixelInput, Shape
from .read import BadImage


class FeatureExtractor(PixelInput):
    """A backbone ready for one device: batch norm folded, channels last, in the configured precision.

    The configuration's precision and level must be resolved (no `auto`).
    """

    def __init__(self, backbone: LoadedBackbone, config: FeaturesConfig, device: torch.device) -> None:
        assert config.precision != "auto"
        require_level(backbone, config.level)
        module = backbone.module.folded()
        super().__init__(module.mean, module.std, device, DTYPES[config.precision])
        self.level = config.level
        self.stride = module.strides[config.level]
        # TF32 holds the ten mantissa bits of fp16, the CPU's bf16 units do not
        self.bf16_valued = config.precision == "bf16" or (config.precision == "fp16" and device.type == "cuda")
        self._module = module.to(device, self.dtype).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, images_BHW3: Tensor) -> Tensor:
        """uint8 RGB [B, H, W, 3] on the device -> features [B, D, ceil(H/stride), ceil(W/stride)]."""
        return self.forward(self.normalise(images_BHW3))

    def forward(self, images_B3HW: Tensor) -> Tensor:
        """The backbone alone."""
        features: Tensor = self._module(images_B3HW, self.level)[self.level]
        return features


def require_level(backbone: LoadedBackbone, level: str) -> None:
    """Raise UserError for a level that the backbone does not have."""
    if level not in backbone.module.strides:
        raise UserError(f"{backbone.arch} has no level {level}: set features.level={backbone.module.levels[-1]}.")


@dataclass(frozen=True, slots=True, eq=False)
class LoadedFeatures:
    """A configured backbone, its weights fetched and checked: the base of what is `Loaded` by producers on features."""

    backbone: LoadedBackbone

    @property
    def weights(self) -> str:
        """Their name or path as given."""
        return self.backbone.weights

    @property
    def weights_sha256(self) -> str:
        """The digest of what of them counts."""
        return self.backbone.weights_sha256

    @property
    def facts(self) -> dict[str, Any]:
        """What they decide where a configuration says `auto`."""
        return self.backbone.facts

    def admit(self, level: str) -> Callable[[DecodedImage], Shape]:
        """Every image with two feature cells on each side, at its own size."""
        require_level(self.backbone, level)
        stride = self.backbone.module.strides[level]

        def admit(image: DecodedImage) -> Shape:
            height, width = image.pixels.shape[:2]
            if min(height, width) <= stride:
                trouble = f"resized to {width}x{height}, it has fewer than 2 feature cells on a side"
                raise BadImage("too_small", trouble)
            return height, width

        return admit


def load_features(config: FeaturesConfig) -> LoadedBackbone:
    """The configured backbone, its weights fetched and checked."""
    return load_backbone(
        config.weights,
        arch=config.arch,
        stride_in_1x1=config.stride_in_1x1,
        seed=config.seed,
        layer=config.layer,
        take=config.take,
    )
