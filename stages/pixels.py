"""Decoded photographs on their way to a network: stacked, brought to the device, normalised there."""

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

PAD_COLOR = (124, 116, 104)  # RGB that the usual normalisation takes to zero, nearly

Shape = tuple[int, int]  # (height, width)
Found = TypeVar("Found")


class PixelInput:
    """Brings stacked pixels to a device and into the form that a network with this normalisation takes."""

    def __init__(
        self,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.device = device
        self.dtype = dtype
        self._mean = torch.tensor(mean, dtype=torch.float32, device=device)
        self._std = torch.tensor(std, dtype=torch.float32, device=device)
        self._copy_stream = _stream(device)

    def normalise(self, images_BHW3: Tensor) -> Tensor:
        """uint8 RGB [B, H, W, 3] -> (rgb - mean) / std as [B, 3, H, W], channels last."""
        width = images_BHW3.shape[2]
        # rows of width * 3 values: four times faster on the CPU than broadcasting over a last dimension of 3
        rows = images_BHW3.flatten(2).to(torch.float32).sub_(self._mean.repeat(width)).div_(self._std.repeat(width))
        return rows.to(self.dtype).view(images_BHW3.shape).permute(0, 3, 1, 2)

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


def stack_pixels(images: list[npt.NDArray[np.uint8]], *, pin: bool, shape: Shape | None = None) -> Tensor:
    """Images [h, w, 3] as one uint8 tensor [B, H, W, 3], in pinned memory if it goes to a GPU.

    They are of one size, or `shape` says to which size they are padded at the right and bottom.
    """
    size = images[0].shape[:2] if shape is None else shape
    batch = torch.empty((len(images), *size, 3), dtype=torch.uint8, pin_memory=pin)
    if all(image.shape[:2] == size for image in images):
        np.stack(images, out=batch.numpy())
        return batch
    batch[:] = torch.tensor(PAD_COLOR, dtype=torch.uint8)
    for padded, image in zip(batch.numpy(), images, strict=True):
        padded[: image.shape[0], : image.shape[1]] = image
    return batch


def to_host(tensor: Tensor) -> Tensor:
    """Start the copy of a tensor into pinned memory, without waiting for the device; it is there after `arrival`."""
    if tensor.device.type == "cpu":
        return tensor
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return pinned.copy_(tensor, non_blocking=True)


def arrival(device: torch.device) -> torch.cuda.Event | None:
    """An event after all copies begun so far, whose `synchronize` blocks only the thread that calls it."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return event


@dataclass(frozen=True, slots=True, eq=False)
class Arriving(Generic[Found]):
    """What a forward pass gave, on its way to host memory; read it after `wait`."""

    found: Found
    arrived: torch.cuda.Event | None

    def wait(self) -> None:
        """Block this thread, not the device's, until the copies have arrived."""
        if self.arrived is not None:
            self.arrived.synchronize()
