"""Where the random crops lie: drawn per photograph, and the geometry that two crops of one photograph share.

All randomness comes from uniform numbers of one generator per step, drawn for the batch of all processes: the same
whatever the number of processes or the device. Shape legend: B images, P = S^2 cells of a view.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ....schemas.training.densecl import AugmentConfig

Floats = npt.NDArray[np.float64]
TRIES = 10  # crops tried before the central one is taken, as in torchvision
UNIFORMS = 2 * TRIES + 12  # numbers per view
_ORDERS = np.array(
    [[a, b, c, 6 - a - b - c] for a in range(4) for b in range(4) for c in range(4) if len({a, b, c}) == 3]
)


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """One view of each of B photographs, on the host.

    `box` [B, 4] is (top, left, height, width) in fractions of the photograph, `flip` [B] mirrors left and right.
    `factors` [B, 4] are brightness, contrast, saturation (multiplied) and hue (added, in turns), applied in the
    order `order` [B, 4] where `jitter` [B]; `grey` [B]; `sigma` [B] of the blur in pixels of the view, 0 for none.
    """

    box: Floats
    flip: npt.NDArray[np.bool_]
    jitter: npt.NDArray[np.bool_]
    factors: Floats
    order: npt.NDArray[np.int64]
    grey: npt.NDArray[np.bool_]
    sigma: Floats


def step_generator(seed: int, step: int, purpose: int) -> np.random.Generator:
    """The generator of one step and purpose; needs no state to be saved."""
    return np.random.default_rng((seed, step, purpose))


def draw_views(uniform_BU: Floats, aspect_B: Floats, config: AugmentConfig) -> Views:
    """From `UNIFORMS` numbers in [0, 1) per photograph to its view; `aspect_B` is width / height as stored."""
    u, rest = uniform_BU[:, : 2 * TRIES], uniform_BU[:, 2 * TRIES :].T
    spread = np.array([config.brightness, config.contrast, config.saturation])
    factors = np.concatenate([1 + spread * (2 * rest[3:6].T - 1), config.hue * (2 * rest[6, :, None] - 1)], axis=1)
    low, high = config.blur_sigma
    return Views(
        box=_crop_boxes(u[:, :TRIES], u[:, TRIES:], rest[0], rest[1], aspect_B, config),
        flip=rest[2] < config.flip,
        jitter=rest[7] < config.jitter,
        factors=factors,
        order=_ORDERS[(rest[8] * len(_ORDERS)).astype(int)],
        grey=rest[9] < config.grey,
        sigma=np.where(rest[10] < config.blur, low + (high - low) * rest[11], 0.0),
    )


def _crop_boxes(
    scale_BT: Floats, ratio_BT: Floats, down_B: Floats, right_B: Floats, aspect_B: Floats, config: AugmentConfig
) -> Floats:
    """Random resized crops: area uniform in `scale`, aspect log-uniform in 3/4..4/3; the first try that fits."""
    area = config.scale[0] + (config.scale[1] - config.scale[0]) * scale_BT
    ratio = np.exp(np.log(4 / 3) * (2 * ratio_BT - 1))
    # sides in fractions: of a photograph that is `aspect` wide and 1 high
    height = np.sqrt(area * aspect_B[:, None] / ratio)
    width = np.sqrt(area * ratio / aspect_B[:, None])
    fits = (height <= 1) & (width <= 1)
    first = fits.argmax(1)
    rows = np.arange(len(fits))
    none = ~fits.any(1)
    central = np.clip(aspect_B, 3 / 4, 4 / 3) / aspect_B
    height = np.where(none, np.minimum(1, 1 / central), height[rows, first])
    width = np.where(none, np.minimum(1, central), width[rows, first])
    top = np.where(none, (1 - height) / 2, down_B * (1 - height))
    left = np.where(none, (1 - width) / 2, right_B * (1 - width))
    return np.stack([top, left, height, width], axis=1)


def true_matches(query: Views, key: Views, side: int) -> npt.NDArray[np.int64]:
    """The key cell that holds the centre of each query cell, by geometry: [B, P], -1 outside the key's crop."""
    y, x = np.divmod(np.arange(side * side), side)
    y_BP = (y + 0.5) / side * query.box[:, 2:3] + query.box[:, 0:1]
    x = np.where(query.flip[:, None], side - 1 - x, x)
    x_BP = (x + 0.5) / side * query.box[:, 3:4] + query.box[:, 1:2]
    row = np.floor((y_BP - key.box[:, 0:1]) / key.box[:, 2:3] * side).astype(np.int64)
    column = np.floor((x_BP - key.box[:, 1:2]) / key.box[:, 3:4] * side).astype(np.int64)
    inside = (row >= 0) & (row < side) & (column >= 0) & (column < side)
    column = np.where(key.flip[:, None], side - 1 - column, column)
    return np.where(inside, row * side + column, -1)


def match_accuracy(match_BP: Tensor, truth_BP: Tensor) -> Tensor:
    """Share of query cells, among those whose place is in the key's crop, matched to the right cell: a scalar.

    Chance is 1 / P. NaN if no cell has a counterpart.
    """
    known = truth_BP >= 0
    return ((match_BP == truth_BP) & known).sum() / known.sum()


def to_device(values: npt.NDArray[np.generic], device: torch.device) -> Tensor:
    """A host array on the device, without waiting."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(device, non_blocking=True)
