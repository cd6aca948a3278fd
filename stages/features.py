"""Frozen backbone features of a batch of equally sized images."""

import torch
from torch import Tensor

from ..schemas.labels.saliency import FeaturesConfig
from .backbone import LoadedBackbone
from .device import DTYPES
from .pixels import PixelInput


class FeatureExtractor(PixelInput):
    """A backbone ready for one device: batch norm folded, channels last, in the configured precision.

    The configuration's precision and level must be resolved (no `auto`).
    """

    def __init__(self, backbone: LoadedBackbone, config: FeaturesConfig, device: torch.device) -> None:
        assert config.precision != "auto"
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
