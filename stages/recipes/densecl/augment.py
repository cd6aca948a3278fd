"""The two views on the device: crop, colour, blur and flip of a whole batch at once, each image with its own numbers.

MoCo-v2's augmentation (METHOD of DenseCL: scale 0.2..1, jitter 0.4/0.4/0.4/0.1, grey 0.2, blur 0.5, flip 0.5).
Resampling and blurring are linear along rows and along columns: both are products with one small matrix per image,
which every device does fast and deterministically. Shape legend: B images, R input side, S output side, in pixels.
"""

import numpy as np
import torch
from torch import Tensor

from .views import Views, to_device

_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)
_LUMA = (0.299, 0.587, 0.114)


def render_views(
    images_BRR3: Tensor, views: Views, size: int, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Tensor:
    """uint8 squares [B, R, R, 3] on the device -> normalised views [B, 3, size, size], channels last, fp32.

    `mean` and `std` are on the 0..255 scale.
    """
    device = images_BRR3.device
    x = _crop(images_BRR3, views, size).div_(255).clamp_(0, 1)
    factors = to_device(views.factors.astype(np.float32), device)
    for place in range(4):
        for kind in range(4):
            chosen = np.flatnonzero(views.jitter & (views.order[:, place] == kind))
            if len(chosen):
                index = to_device(chosen, device)
                x[index] = _adjust(x[index], factors[index, kind].view(-1, 1, 1, 1), kind)
    if len(grey := np.flatnonzero(views.grey)):
        index = to_device(grey, device)
        x[index] = _luma(x[index]).expand(-1, 3, -1, -1)
    if len(blurred := np.flatnonzero(views.sigma > 0)):
        index = to_device(blurred, device)
        x[index] = _blur(x[index], to_device(views.sigma[blurred].astype(np.float32), device))
    scale = torch.tensor([255 / s for s in std], device=device).view(3, 1, 1)
    shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)], device=device).view(3, 1, 1)
    return x.mul_(scale).sub_(shift).contiguous(memory_format=torch.channels_last)


def _crop(images_BRR3: Tensor, views: Views, size: int) -> Tensor:
    """Antialiased resampling of each image's box to [B, 3, size, size] on the 0..255 scale."""
    count, side = images_BRR3.shape[:2]
    box = to_device(views.box.astype(np.float32), images_BRR3.device)
    flip = to_device(views.flip, images_BRR3.device)
    rows = _resample_matrix(box[:, 0], box[:, 2], side, size)
    columns = _resample_matrix(box[:, 1], box[:, 3], side, size)
    columns = torch.where(flip[:, None, None], columns.flip(1), columns)
    x = torch.bmm(rows, images_BRR3.flatten(2).to(torch.float32))  # [B, size, R * 3]
    x = x.view(count, size, side, 3).permute(0, 3, 1, 2).reshape(count, 3 * size, side)
    return torch.bmm(x, columns.transpose(1, 2)).view(count, 3, size, size)


def _resample_matrix(start_B: Tensor, length_B: Tensor, side: int, size: int) -> Tensor:
    """Weights [B, size, side] that take an interval, in fractions, to `size` pixels: a triangle filter whose width
    grows when shrinking, which is antialiased bilinear interpolation.
    """  # noqa: D205
    step = length_B / size * side  # input pixels per output pixel
    out = torch.arange(size, device=start_B.device) + 0.5
    center = start_B[:, None] * side + out * step[:, None] - 0.5
    pixels = torch.arange(side, device=start_B.device)
    support = step.clamp_min(1)[:, None, None]
    weights = (1 - (pixels - center[..., None]).abs_().div_(support)).clamp_min_(0)
    return weights.div_(weights.sum(2, keepdim=True))


def _blur(x_B3SS: Tensor, sigma_B: Tensor) -> Tensor:
    """Gaussian blur with a width of its own for each image; at the border the kernel is cut and normalised anew."""
    count, _, size, _ = x_B3SS.shape
    pixels = torch.arange(size, device=x_B3SS.device, dtype=torch.float32)
    far = ((pixels - pixels[:, None]) / sigma_B[:, None, None]).square_()
    # The tails would be denormal numbers, which make a product on the CPU ten times slower.
    kernel = torch.where(far < 36, torch.exp(-0.5 * far), 0)
    kernel.div_(kernel.sum(2, keepdim=True))
    x = torch.bmm(x_B3SS.reshape(count, 3 * size, size), kernel.transpose(1, 2)).view(count, 3, size, size)
    x = x.transpose(2, 3).reshape(count, 3 * size, size)
    return torch.bmm(x, kernel.transpose(1, 2)).view(count, 3, size, size).transpose(2, 3)


def _adjust(x_B3SS: Tensor, factor: Tensor, kind: int) -> Tensor:
    if kind == _BRIGHTNESS:
        return (x_B3SS * factor).clamp_(0, 1)
    if kind == _CONTRAST:
        return torch.lerp(_luma(x_B3SS).mean((1, 2, 3), keepdim=True), x_B3SS, factor).clamp_(0, 1)
    if kind == _SATURATION:
        return torch.lerp(_luma(x_B3SS), x_B3SS, factor).clamp_(0, 1)
    return _turn_hue(x_B3SS, factor[:, 0])


def _luma(x_B3SS: Tensor) -> Tensor:
    r, g, b = x_B3SS.unbind(1)
    return torch.add(r * _LUMA[0], g, alpha=_LUMA[1]).add_(b, alpha=_LUMA[2]).unsqueeze(1)


def _turn_hue(x_B3SS: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue of the HSV hexagon; value and saturation stay."""
    r, g, b = x_B3SS.unbind(1)
    value = x_B3SS.amax(1)
    chroma = value - x_B3SS.amin(1)
    safe = chroma.clamp_min(1e-8)
    sector = torch.where(
        value == r, (g - b).div_(safe), torch.where(value == g, (b - r).div_(safe).add_(2), (r - g).div_(safe).add_(4))
    ).add_(6 * turns)
    out = torch.empty_like(x_B3SS)
    for channel, offset in enumerate((5, 3, 1)):
        k = (sector + offset).remainder_(6)
        out[:, channel] = value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1)
    return out
