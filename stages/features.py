"""Frozen backbone features of a batch of equally sized images."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..models.backbones.resnet import ResNet, fold_batch_norm
from ..schemas.config import FeaturesConfig
from .backbone import LoadedBackbone
from .device import DTYPES


class FeatureExtractor:
    """A backbone ready for one device: batch norm folded, channels last, in the configured precision.

    The configuration's precision and level must be resolved (no `auto`).
    """

    def __init__(self, backbone: LoadedBackbone, config: FeaturesConfig, device: torch.device) -> None:
        assert config.precision != "auto"
        module = backbone.module
        if isinstance(module, ResNet):
            module = fold_batch_norm(module)
        assert not module.training, "features of a frozen backbone use running statistics"
        self.device = device
        self.level = config.level
        self.dtype = DTYPES[config.precision]
        # TF32 holds the ten mantissa bits of fp16, the CPU's bf16 units do not
        self.bf16_valued = config.precision == "bf16" or (config.precision == "fp16" and device.type == "cuda")
        self._module = module.to(device, self.dtype).to(memory_format=torch.channels_last)
        self._mean = torch.tensor(module.mean, dtype=torch.float32, device=device)
        self._copy_stream = _stream(device)
        self._std = torch.tensor(module.std, dtype=torch.float32, device=device)

    @torch.inference_mode()
    def __call__(self, images_BHW3: Tensor) -> Tensor:
        """uint8 RGB [B, H, W, 3] on the device -> features [B, D, ceil(H/stride), ceil(W/stride)]."""
        return self.forward(self.normalise(images_BHW3))

    def normalise(self, images_BHW3: Tensor) -> Tensor:
        """uint8 RGB [B, H, W, 3] -> the backbone's input [B, 3, H, W], channels last."""
        width = images_BHW3.shape[2]
        # rows of width * 3 values: four times faster on the CPU than broadcasting over a last dimension of 3
        rows = images_BHW3.flatten(2).to(torch.float32).sub_(self._mean.repeat(width)).div_(self._std.repeat(width))
        return rows.to(self.dtype).view(images_BHW3.shape).permute(0, 3, 1, 2)

    def forward(self, images_B3HW: Tensor) -> Tensor:
        """The backbone alone."""
        features: Tensor = self._module(images_B3HW, self.level)[self.level]
        return features

    def upload(self, pixels_BHW3: Tensor) -> Tensor:
        """Bring a batch to the device without waiting; on CUDA beside the running computation, in its own stream."""
        if self._copy_stream is None:
            return pixels_BHW3
        computing = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._copy_stream):
            images = pixels_BHW3.to(self.device, non_blocking=True)
        computing.wait_stream(self._copy_stream)
        images.record_stream(computing)
        return images


def _stream(device: torch.device) -> torch.cuda.Stream | None:
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]


def stack_pixels(images: list[npt.NDArray[np.uint8]], *, pin: bool) -> Tensor:
    """Equally sized images [H, W, 3] as one uint8 tensor [B, H, W, 3], in pinned memory if it goes to a GPU."""
    batch = torch.empty((len(images), *images[0].shape), dtype=torch.uint8, pin_memory=pin)
    np.stack(images, out=batch.numpy())
    return batch
