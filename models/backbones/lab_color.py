"""Features without weights: the distribution of Lab colour and gradients in each cell of the grid.

The baseline that every learned backbone must beat. Shape legend: B images, H W pixels, D = 2 M features,
C = 6 measurements per patch.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Backbone

_PATCH = 4  # pixels; measurements are averaged over patches of this side first
# Bandwidths of the kernel: L, a, b in CIE Lab units (just noticeable: about 2), gradient strength in 0..1
_BANDWIDTHS = (12.0, 8.0, 8.0, 0.4, 0.4, 0.4)
_HALF_GRADIENT = 4.0  # L units per pixel at which gradient strength is 1/2
_FREQUENCIES = 128  # M
_LATTICE = 1024.0


class LabColor(Backbone):
    """Mean embedding of each cell's distribution of colour and gradient under a Gaussian kernel.

    Per patch of 4x4 pixels v = (L, a, b, m, m cos 2t, m sin 2t), where m in 0..1 is the saturated strength and t
    the unsigned orientation of the gradient of L. A cell's feature is the average over its patches of
    [cos Wv, sin Wv], random Fourier features (Rahimi and Recht 2007) whose frequencies W come from a Sobol
    sequence: the dot product of two cells is about M times the mean of exp(-d(v, v')^2 / 2) over their pairs
    of patches, d measured in bandwidths. So cells of like colour and texture have cosine 1, unlike ones about 0,
    uniform images have equal features everywhere, and nothing depends on position.

    Cells are those of the ResNets (ceil(H / stride) rows) but divide the image evenly. Values are rounded
    to 1/1024 before each averaging: sums are then exact in fp32, and the result does not depend on their
    order, on the batch or on the number of threads. Takes 0..1 RGB; has no parameters.
    """

    mean = (0.0, 0.0, 0.0)
    std = (255.0, 255.0, 255.0)
    precision = "fp32"  # what is averaged is exact in fp32 alone
    version = "lab-color 1"
    frequencies: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.strides = {"c3": 8, "c4": 16, "c5": 32}
        self.channels = dict.fromkeys(self.strides, 2 * _FREQUENCIES)
        self.register_buffer("frequencies", _frequencies(_FREQUENCIES), persistent=False)

    def forward(self, images_B3HW: Tensor, level: str = "c5") -> dict[str, Tensor]:
        """0..1 RGB to `c3` .. `level`, each [B, D, ceil(H / stride), ceil(W / stride)], in the input's type.

        Computed in fp32, with frequencies in the module's type.
        """
        if level not in self.strides:
            raise ValueError(f"there is no level {level!r}: choose one of {', '.join(self.strides)}")
        height, width = images_B3HW.shape[2:]
        lab_B3HW = rgb_to_lab(images_B3HW.float())
        pixels_BCHW = torch.cat([lab_B3HW, _gradients(lab_B3HW[:, :1])], dim=1)
        patches_BCHW = F.avg_pool2d(_snap(pixels_BCHW), _PATCH, ceil_mode=True)
        angles_BMHW = torch.einsum("mc,bchw->bmhw", self.frequencies.float(), patches_BCHW)
        waves_BDHW = _snap(torch.cat([angles_BMHW.cos(), angles_BMHW.sin()], dim=1))
        maps = {}
        for name, stride in self.strides.items():
            grid = (math.ceil(height / stride), math.ceil(width / stride))
            maps[name] = F.adaptive_avg_pool2d(waves_BDHW, grid).to(images_B3HW.dtype)
            if name == level:
                break
        return maps


def rgb_to_lab(rgb_B3HW: Tensor) -> Tensor:
    """SRGB in 0..1 to CIE Lab under D65 and the 2 degree observer: L in 0..100, a and b about -110..110.

    IEC 61966-2-1 for the first step, CIE 15 for the second.
    """
    linear = torch.where(rgb_B3HW > 0.04045, _power((rgb_B3HW + 0.055) / 1.055, 2.4), rgb_B3HW / 12.92)
    r, g, b = linear.unbind(1)
    xyz = torch.stack(  # relative to the white point; scalars, since a matrix would be copied to the device each time
        [
            (0.412453 * r + 0.357580 * g + 0.180423 * b) / 0.95047,
            0.212671 * r + 0.715160 * g + 0.072169 * b,
            (0.019334 * r + 0.119193 * g + 0.950227 * b) / 1.08883,
        ],
        dim=1,
    )
    f = torch.where(xyz > (6 / 29) ** 3, _power(xyz.clamp_min(1e-6), 1 / 3), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def _power(base: Tensor, exponent: float) -> Tensor:
    # torch.pow rounds the last few elements of a run of memory differently from the others
    return (base.log() * exponent).exp()


def _gradients(lightness_B1HW: Tensor) -> Tensor:
    """Strength m and orientation (m cos 2t, m sin 2t) of the gradient by central differences: [B, 3, H, W].

    m = g / (g + 4) keeps the contrast of an edge from outweighing its presence; 2t makes opposite directions one.
    """
    padded = F.pad(lightness_B1HW, (1, 1, 1, 1), mode="replicate")
    dx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    dy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    square = dx * dx + dy * dy
    strength = square.sqrt()
    strength = strength / (strength + _HALF_GRADIENT)
    turn = strength / square.clamp_min(1e-12)
    return torch.cat([strength, (dx * dx - dy * dy) * turn, 2 * dx * dy * turn], dim=1)


def _frequencies(count: int) -> Tensor:
    """Frequencies [M, C] of the Gaussian kernel: normal quantiles of a Sobol sequence, over the bandwidths."""
    engine = torch.quasirandom.SobolEngine(len(_BANDWIDTHS))  # type: ignore[no-untyped-call]
    uniform = engine.draw(count + 1, dtype=torch.float64)[1:].clamp(1e-6, 1 - 1e-6)  # the first point is the origin
    normal = math.sqrt(2) * torch.erfinv(2 * uniform - 1)
    return (normal / torch.tensor(_BANDWIDTHS, dtype=torch.float64)).float()


def _snap(values: Tensor) -> Tensor:
    return torch.round(values * _LATTICE) / _LATTICE
