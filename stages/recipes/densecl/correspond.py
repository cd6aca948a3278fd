"""A picture of what a backbone takes for the same: mutual matches between two views of one photograph."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from ....models.backbones.base import Backbone
from ....models.densecl.losses import mutual_matches
from ....schemas.errors import UserError
from ....schemas.records import ImageRef
from ....schemas.training.densecl import AugmentConfig, PhotosConfig
from .augment import render_views
from .photos import PhotoSquares
from .views import UNIFORMS, draw_views, step_generator, true_matches

_GAP = 8  # pixels between the views
_RIGHT, _WRONG = (80, 220, 60), (230, 60, 40)


@dataclass(frozen=True, slots=True, eq=False)
class Correspondence:
    """Mutual matches: cells of both views and their similarity [m]; how many are right; the two views as bytes.

    A match is right if the cells lie within one cell of each other by the crops' geometry. `overlap` is the number of
    cells of the first view that the second shows.
    """

    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    similarity: npt.NDArray[np.float32]
    right: npt.NDArray[np.bool_]
    overlap: int
    views: npt.NDArray[np.uint8]
    grid: int


@torch.no_grad()
def correspond(
    backbone: Backbone, ref: ImageRef, augment: AugmentConfig, *, threshold: float = 0.9, seed: int = 0
) -> Correspondence:
    """Two random views (crop, colour, blur, flip) of a photograph and their mutual matches from `threshold` on.

    The backbone is in eval mode on the CPU; features are compared by cosine similarity (thesis section 5.3.4).
    Raises UserError if the photograph cannot be used.
    """
    assert not backbone.training
    squares = PhotoSquares([ref], PhotosConfig(side=min(2048, 2 * augment.size)))[0]
    if squares.skipped:
        raise UserError(f"{ref.file_name} cannot be used ({squares.skipped[0].error}): give another photograph.")
    uniform = step_generator(seed, 0, 1).random((1, 2, UNIFORMS))
    views = [draw_views(uniform[:, i], squares.aspect, augment) for i in (0, 1)]
    shown = [render_views(squares.pixels, v, augment.size, (0, 0, 0), (1, 1, 1)) for v in views]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (backbone.mean, backbone.std))
    features = [F.normalize(backbone((x - mean) / std, "c5")["c5"].flatten(2)[0], dim=0) for x in shown]
    similarity = features[0].T @ features[1]
    first, second = mutual_matches(similarity)
    values = similarity[first, second]
    keep = values >= threshold
    grid = round(features[0].shape[1] ** 0.5)
    cells = first[keep].numpy(), second[keep].numpy()
    truth = true_matches(views[0], views[1], grid)[0]
    return Correspondence(
        *cells,
        similarity=values[keep].numpy(),
        right=_near(truth[cells[0]], cells[1], grid),
        overlap=int((truth >= 0).sum()),
        views=torch.cat(shown).permute(0, 2, 3, 1).round().clamp(0, 255).byte().numpy(),
        grid=grid,
    )


def draw_correspondence(result: Correspondence, out: Path) -> None:
    """Write both views side by side, right matches joined in green, wrong ones in red.

    Raises UserError if `out` does not end in .png or .jpg.
    """
    size = result.views.shape[1]
    canvas = np.full((size, 2 * size + _GAP, 3), 255, np.uint8)
    canvas[:, :size], canvas[:, size + _GAP :] = result.views
    step = size / result.grid
    for first, second, right in zip(result.first, result.second, result.right, strict=True):
        ends = []
        for cell, shift in ((int(first), 0), (int(second), size + _GAP)):
            row, column = divmod(cell, result.grid)
            ends.append((round((column + 0.5) * step) + shift, round((row + 0.5) * step)))
        color = _RIGHT if right else _WRONG
        cv2.line(canvas, ends[0], ends[1], color, 1, cv2.LINE_AA)
        for end in ends:
            cv2.circle(canvas, end, 3, color, -1, cv2.LINE_AA)
    if out.suffix.lower() not in {".png", ".jpg", ".jpeg"}:
        raise UserError(f"{out} is no picture's name: choose one that ends in .png or .jpg.")
    out.parent.mkdir(parents=True, exist_ok=True)
    _, data = cv2.imencode(out.suffix, canvas[..., ::-1])
    out.write_bytes(data.tobytes())


def _near(truth: npt.NDArray[np.int64], cells: npt.NDArray[np.int64], grid: int) -> npt.NDArray[np.bool_]:
    rows = np.abs(truth // grid - cells // grid)
    columns = np.abs(truth % grid - cells % grid)
    near: npt.NDArray[np.bool_] = (truth >= 0) & (np.maximum(rows, columns) <= 1)
    return near
