"""A picture of what ContrastMask's contrastive head sees in the instances it finds in a photograph.

Shape legend: n instances, S = 28 cells of an instance's side, C channels.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..models.detector import Limits
from ..models.mask_rcnn.model import Contrasted, MaskRCNN
from ..schemas.errors import UserError
from ..schemas.records import ImageRef
from .instances.samples import collate, load_pixels, make_sample

Image = npt.NDArray[np.uint8]

FONT = cv2.FONT_HERSHEY_SIMPLEX
TILE = 168  # pixels of a picture's side
GAP, HEAD = 6, 22
TITLES = ("found", "activation", "lattice", "easy keys", "hard keys", "features")
FRONT, BACK = (80, 220, 60), (230, 60, 40)
OPACITY = 0.55


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """A photograph as the model saw it, RGB [h, w, 3], and what the head sees in its instances."""

    pixels: Image
    seen: Contrasted


@torch.inference_mode()
def look(
    model: MaskRCNN,
    ref: ImageRef,
    size: tuple[int, int],
    *,
    most: int = 8,
    min_score: float = 0.0,
    max_pixels: int = 100_000_000,
    seed: int = 0,
) -> Look:
    """Find instances in one photograph, resized to `size` (short side, at most long side), and look into the head.

    The model is in eval mode; `seed` draws the keys. Raises UserError for a photograph that cannot be used, and for a
    model without a contrastive head.
    """
    if model.contrast is None:
        raise UserError("This model has no contrastive head to look into: give a run of --model contrastmask.")
    assert not model.training
    pixels, stored = load_pixels(ref, size, max_pixels)
    about = {"image_id": ref.image_id, "file_name": ref.file_name, "stored": stored}
    batch = collate([make_sample(pixels, np.zeros((0, *pixels.shape[:2]), np.uint8), [], about)])
    device = next(model.parameters()).device
    mean, std = (
        torch.tensor(values, device=device).view(3, 1, 1) for values in (model.backbone.mean, model.backbone.std)
    )
    with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device]):
        torch.manual_seed(seed)
        images = (batch.images.to(device).float() - mean) / std
        seen = model.explain(images, batch.resized, Limits(most, min_score))[0]
    return Look(pixels, seen)


def principal_colors(features_nCSS: Tensor) -> Image:
    """The three strongest principal components of all pixels' features as red, green and blue: [n, S, S, 3].

    Each is spread from its 2nd to its 98th percentile, and points to where its longest tail lies.
    """
    n, channels, side = features_nCSS.shape[:3]
    flat = features_nCSS.double().cpu().permute(0, 2, 3, 1).reshape(-1, channels)
    if not len(flat):
        return np.zeros((0, side, side, 3), np.uint8)
    flat = flat - flat.mean(0)
    _, axes = torch.linalg.eigh(flat.T @ flat)
    scores = (flat @ axes.flip(1)[:, :3]).numpy()
    scores *= np.where(scores.max(0) >= -scores.min(0), 1.0, -1.0)
    low, high = np.percentile(scores, [2, 98], axis=0)
    unit = ((scores - low) / np.maximum(high - low, 1e-12)).clip(0, 1)
    colors = np.zeros((len(unit), 3), np.uint8)
    colors[:, : unit.shape[1]] = (255 * unit).round()
    return colors.reshape(n, side, side, 3)


def draw_contrast(result: Look, out: Path) -> None:
    """Write a row of tiles per instance: the found mask, activation map, lattice, easy and hard keys, features.

    Foreground is green, background red. Raises UserError if `out` does not end in .png or .jpg, or if nothing was
    found.
    """
    if out.suffix.lower() not in {".png", ".jpg", ".jpeg"}:
        raise UserError(f"{out} is no picture's name: choose one that ends in .png or .jpg.")
    seen = result.seen
    if not len(seen.found):
        raise UserError(
            "The model finds nothing in this photograph: give another, lower --min-score (down to the run's "
            "model.score_threshold), or train longer."
        )
    colors = principal_colors(seen.features)
    canvas = np.full((HEAD + len(seen.found) * (TILE + GAP), len(TITLES) * (TILE + GAP) - GAP, 3), 255, np.uint8)
    for column, title in enumerate(TITLES):
        cv2.putText(canvas, title, (column * (TILE + GAP), HEAD - 7), FONT, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    assert seen.found.boxes is not None
    boxes = seen.found.boxes.cpu().numpy()
    signs = [one.int().cpu().numpy() for one in (seen.front.int() - seen.back.int(), seen.easy, seen.hard)]
    masks, cams = (seen.found.maps >= 0.5).cpu().numpy(), seen.cams.float().cpu().numpy()
    for row in range(len(boxes)):
        cut = _cut(result.pixels, boxes[row])
        heat = cv2.applyColorMap((255 * cams[row]).round().astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]
        tiles = [
            _tint(cut, masks[row].astype(np.int32)),
            cv2.resize(np.ascontiguousarray(heat), (TILE, TILE), interpolation=cv2.INTER_NEAREST),
            *(_tint(cut, sign[row]) for sign in signs),
            cv2.resize(colors[row], (TILE, TILE), interpolation=cv2.INTER_NEAREST),
        ]
        top = HEAD + row * (TILE + GAP)
        for column, tile in enumerate(tiles):
            left = column * (TILE + GAP)
            canvas[top : top + TILE, left : left + TILE] = tile
    out.parent.mkdir(parents=True, exist_ok=True)
    _, data = cv2.imencode(out.suffix, canvas[..., ::-1])
    out.write_bytes(data.tobytes())


def _cut(pixels_hw3: Image, box: npt.NDArray[np.float32]) -> Image:
    """What lies in the box, as a tile."""
    height, width = pixels_hw3.shape[:2]
    left, top = min(int(box[0]), width - 1), min(int(box[1]), height - 1)
    right, bottom = max(left + 1, round(float(box[2]))), max(top + 1, round(float(box[3])))
    return cv2.resize(pixels_hw3[top:bottom, left:right], (TILE, TILE), interpolation=cv2.INTER_LINEAR).astype(np.uint8)


def _tint(tile: Image, sign_SS: npt.NDArray[np.int32]) -> Image:
    """A tile with the cells of sign 1 in the foreground's colour and of sign -1 in the background's."""
    large = cv2.resize(sign_SS.astype(np.int16), (TILE, TILE), interpolation=cv2.INTER_NEAREST)
    tinted = tile.astype(np.float32)
    for value, color in ((1, FRONT), (-1, BACK)):
        tinted[large == value] = (1 - OPACITY) * tinted[large == value] + OPACITY * np.array(color)
    return tinted.round().astype(np.uint8)
