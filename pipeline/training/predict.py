"""A trained model on photographs: results and pictures."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from pycocotools import mask as coco_mask

from ...schemas.errors import UserError
from ...schemas.records import ImageRef
from ...stages.evaluate import match_names
from ...stages.instances.results import Instances, as_results
from ...stages.instances.samples import load_pixels
from ...stages.overlay import draw_overlay
from ..sources import open_source
from .find import AS_TRAINED, Conditions, find_in
from .matting import write_mattes
from .model import load_detector
from .panoptic import write_pictures


def predict(
    run: Path,
    photos: str,
    out: Path,
    device: torch.device,
    *,
    overlays: Path | None = None,
    min_score: float = 0.05,
    conditions: Conditions = AS_TRAINED,
    root: str | None = None,
    ids_of: Path | None = None,
    skip: Callable[[str], None] = lambda _: None,
) -> int:
    """Write COCO results, with the file name in each, and return their number; `skip` is told of bad photographs.

    Names in a list start at `root`. Results get the image ids of the COCO file `ids_of`, matched by file name;
    photographs that it lacks are left out.
    A panoptic model writes a panoptic json with its pictures, a matting model a folder of alphas.
    """
    model = load_detector(run)
    refs = list(open_source(photos, root).refs())
    if ids_of is not None:
        ids = match_names({ref.image_id: ref.file_name for ref in refs}, ids_of, photos)
        refs = [replace(ref, image_id=ids[ref.image_id]) for ref in refs if ref.image_id in ids]
    if model.card.recipe == "panoptic":
        return write_pictures(model, refs, out, device, skip)
    if model.card.recipe == "matting":
        return write_mattes(model, refs, out, device, skip, min_score)
    results: list[dict[str, Any]] = []
    config = conditions.of(model.config)
    found_in = find_in(model.module.to(device), config, refs, device, min_score=min_score, skipped=skip)
    for ref, found in found_in:
        if found is None:
            continue
        results += [{**one, "file_name": ref.file_name} for one in as_results(found, ref.image_id, model.categories)]
        if overlays is not None:
            _draw(ref, found, overlays)
    try:
        out.write_text(json.dumps(results), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}): choose another --out.") from None
    return len(results)


def _draw(ref: ImageRef, found: Instances, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pixels, _ = load_pixels(ref, None, 100_000_000)
    counts = [mask["counts"] for mask in found.masks]
    boxes_n4 = np.array([coco_mask.toBbox(mask) for mask in found.masks], np.float32).reshape(-1, 4)
    picture = draw_overlay(pixels, counts, boxes_n4, found.scores)
    name = Path(ref.file_name).with_suffix("").as_posix().replace("/", "_")
    cv2.imwrite(str(folder / f"{name}.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
