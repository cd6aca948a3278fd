"""Twelve scenes with their pseudo-labels and their true masks as COCO annotations."""

import json
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from corpus import encode, scene
from saliency_prompt.pipeline.generate import Job, generate
from saliency_prompt.pipeline.progress import Display
from saliency_prompt.pipeline.sources import open_source
from saliency_prompt.schemas.load import load_config

SMALL = [
    "features.weights=random",
    "features.arch=resnet18",
    "features.precision=fp32",
    "decode.short_side=256",
    "decode.long_side=512",
    "plan.shard_size=5",
    "filters.min_score=0.0",
    "filters.keep_best=true",
]


@dataclass(frozen=True)
class LabelledWorld:
    """Photographs, a data set of pseudo-labels of them, and annotations whose category ids have gaps."""

    photos: Path
    dataset: str
    gt: Path


def write_scenes(folder: Path, count: int, *, height: int = 96, width: int = 128) -> Path:
    """Scenes 0..count-1 and `gt.json` beside their folder: ellipses are category 3, boxes category 7."""
    folder.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for i in range(count):
        pixels, masks = scene(i, height, width)
        (folder / f"scene_{i:03d}.png").write_bytes(encode(pixels, "PNG"))
        images.append({"id": 100 + i, "file_name": f"scene_{i:03d}.png", "height": height, "width": width})
        for j, mask in enumerate(masks, start=1):
            rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            bbox = coco_mask.toBbox(rle).tolist()
            area = float(coco_mask.area(rle))
            rle["counts"] = rle["counts"].decode()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 100 + i,
                    "category_id": 3 if j % 2 else 7,
                    "segmentation": rle,
                    "bbox": bbox,
                    "area": area,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": 3, "name": "ellipse"}, {"id": 7, "name": "box"}]
    path = folder.parent / "gt.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> LabelledWorld:
    from rich.console import Console

    base = tmp_path_factory.mktemp("labelled")
    gt = write_scenes(base / "photos", 12)
    job = Job(str(base / "data"), load_config(overrides=SMALL), torch.device("cpu"))
    with Display(Console(quiet=True)) as display:
        generate(open_source(str(base / "photos")), job, display, threading.Event())
    return LabelledWorld(base / "photos", str(base / "data"), gt)
