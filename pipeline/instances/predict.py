"""A trained model on photographs: results, pictures, kernel maps."""

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from pycocotools import mask as coco_mask

from ...schemas.errors import UserError
from ...schemas.records import ImageRef
from ...stages.instances.results import Instances, as_results
from ...stages.instances.samples import load_pixels
from ...stages.overlay import draw_overlay
from ..sources import open_source
from .evaluate import Scores, evaluate_model, find_in, kernel_maps, kernel_numbers
from .runs import load_model


def predict(
    run: Path,
    photos: str,
    out: Path,
    device: torch.device,
    *,
    overlays: Path | None = None,
    min_score: float = 0.05,
    skip: Callable[[str], None] = lambda _: None,
) -> int:
    """Write COCO results, with the file name in each, and return their number; `skip` is told of bad photographs."""
    model = load_model(run)
    categories = model.card.get("categories")
    refs = list(open_source(photos).refs())
    results: list[dict[str, Any]] = []
    found_in = find_in(model.host.to(device), model.config, refs, device, min_score=min_score, skipped=skip)
    for ref, found in found_in:
        if found is None:
            continue
        results += [{**one, "file_name": ref.file_name} for one in as_results(found, ref.image_id, categories)]
        if overlays is not None:
            _draw(ref, found, overlays)
    try:
        out.write_text(json.dumps(results), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}): choose another --out.") from None
    return len(results)


def evaluate_run(run: Path, images: str, gt: str, device: torch.device) -> Scores:
    """COCO metrics of a run on annotated photographs."""
    model = load_model(run)
    categories = model.card.get("categories", [1])
    return evaluate_model(model.host.to(device), model.config, categories, images, gt, device)


def draw_kernels(run: Path, images: str, out: Path, device: torch.device, *, limit: int) -> dict[str, float]:
    """Write a grid of all queries' mean masks, each scaled to its own range, and give `kernel_numbers`."""
    model = load_model(run)
    refs = list(islice(open_source(images).refs(), limit))
    maps = kernel_maps(model.host.to(device), model.config, refs, device)
    columns = int(np.ceil(np.sqrt(len(maps))))
    side, gap = maps.shape[1] // 2, 4
    rows = -(-len(maps) // columns)
    sheet = np.full((rows * (side + gap), columns * (side + gap), 3), 255, np.uint8)
    for place, one in enumerate(maps):
        low, high = float(one.min()), float(one.max())
        level = np.rint((one - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
        picture = cv2.applyColorMap(cv2.resize(level, (side, side), interpolation=cv2.INTER_AREA), cv2.COLORMAP_VIRIDIS)
        y, x = divmod(place, columns)
        sheet[y * (side + gap) : y * (side + gap) + side, x * (side + gap) : x * (side + gap) + side] = picture
    if not cv2.imwrite(str(out), sheet):
        raise UserError(f"{out} cannot be written: give a .png or .jpg in a folder that exists.")
    return kernel_numbers(maps)


def _draw(ref: ImageRef, found: Instances, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pixels, _ = load_pixels(ref, None, 100_000_000)
    counts = [mask["counts"] for mask in found.masks]
    boxes_n4 = np.array([coco_mask.toBbox(mask) for mask in found.masks], np.float32).reshape(-1, 4)
    picture = draw_overlay(pixels, counts, boxes_n4, found.scores)
    name = Path(ref.file_name).with_suffix("").as_posix().replace("/", "_")
    cv2.imwrite(str(folder / f"{name}.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
