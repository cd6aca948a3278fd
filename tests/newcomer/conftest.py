"""A place where the documentation's commands can be typed as they stand: its names are files, its weights small.

What a page calls PHOTOS or instances.json is there under that name. Registered weights are a random ResNet-18, and the
presets that commands take by default are small ones.
"""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from corpus import scene, write_scenes, write_video
from saliency_prompt.pipeline.api import generate
from saliency_prompt.schemas.labels.random import RANDOM_PRESETS
from saliency_prompt.schemas.labels.saliency import PRESETS
from saliency_prompt.schemas.partial import VOC_NAMES
from saliency_prompt.schemas.training.densecl import DENSECL_PRESETS
from saliency_prompt.schemas.training.registry import DEFAULT_PRESETS, MODELS
from saliency_prompt.stages.panoptic import encode_png
from saliency_prompt.store.dataset import Dataset
from saliency_prompt.store.verdicts import IMAGE, VerdictFile, verdicts_path
from saliency_prompt.store.weights import WEIGHTS, WeightsEntry
from training_runs import small_weights, train

COUNT = 10  # of which 10 % are one
CLASSES = (*VOC_NAMES, "umbrella")  # so that `--base voc` is a split
KINDS = {3: CLASSES.index("person") + 1, 7: CLASSES.index("umbrella") + 1}  # by the scenes' own categories
LABELS: dict[str, dict[str, Any]] = {
    "decode": {"short_side": 96, "long_side": 128},
    "filters": {"min_score": 0.0, "keep_best": True},
}
TRAINING: dict[str, dict[str, Any]] = {
    "data": {"batch_size": 4, "short_side": 64, "long_side": 96, "short_sides": [], "workers": 0},
    "trainer": {"max_epochs": 1, "log_every": 1, "precision": "fp32", "evaluate_every": 0, "warmup_steps": 0},
}
DENSECL: dict[str, dict[str, Any]] = {
    "photos": {"side": 64, "workers": 0},
    "augment": {"size": 64},
    "model": {"arch": "resnet18", "queue": 16},
    "optim": {"batch_size": 4, "epochs": 1},
    "train": {"log_every": 1, "precision": "fp32"},
}
VOC_XML = """<annotation><filename>000001.jpg</filename><size><width>128</width><height>96</height></size><object>
<name>cat</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>50</xmax><ymax>60</ymax></bndbox></object></annotation>"""


def merged(*presets: Any) -> dict[str, dict[str, Any]]:
    """Presets over each other, the last on top."""
    found: dict[str, dict[str, Any]] = {}
    for preset in presets:
        for section, fields in preset.items():
            found[section] = {**found.get(section, {}), **fields}
    return found


def _small(presets: Any) -> dict[str, Any]:
    """The presets with the one that is taken by default made small."""
    first = next((name for name in DEFAULT_PRESETS if name in presets), next(iter(presets)))
    return {**presets, first: merged(presets.get("tiny", presets[first]), TRAINING)}


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs with annotations of every kind, and data sets: to be copied."""
    base = tmp_path_factory.mktemp("newcomer")
    write_scenes(base / "PHOTOS", COUNT)
    gt = json.loads((base / "gt.json").read_text())
    gt["categories"] = [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)]
    for one in gt["annotations"]:
        one["category_id"] = KINDS[one["category_id"]]
    for name in ("gt.json", "instances.json", "val.json"):
        (base / name).write_text(json.dumps(gt))
    boxes = [{k: v for k, v in one.items() if k != "segmentation"} for one in gt["annotations"]]
    (base / "boxes.json").write_text(json.dumps({**gt, "annotations": boxes}))
    results = [
        {k: one[k] for k in ("image_id", "category_id", "bbox", "segmentation")} | {"score": 0.9}
        for one in gt["annotations"]
    ]
    (base / "results.json").write_text(json.dumps(results))
    for name in ("DATASET", "OTHER"):
        generate(base / "PHOTOS", base / name, weights="lab-color", settings=["decode.short_side=96"], device="cpu")
    _accept_one(Dataset.open(str(base / "DATASET")))
    settings = [f"{section}.{field}={value}" for section in TRAINING for field, value in TRAINING[section].items()]
    train(base / "RUN", settings, images=base / "PHOTOS", gt=base / "gt.json")
    (base / "list.txt").write_text("".join(f"{path.name}\n" for path in sorted((base / "PHOTOS").iterdir())))
    write_video(base / "clip.mp4", 40)
    (base / "VIDEOS").mkdir()
    write_video(base / "VIDEOS" / "a.avi", 31)
    _write_panoptic(base, gt)
    _write_mattes(base)
    shutil.copyfile(small_weights(), base / "backbone.safetensors")
    torch.manual_seed(0)
    published = MaskRCNN(resnet_fpn_backbone(backbone_name="resnet18", weights=None), len(CLASSES) + 1)
    state = published.state_dict()
    state["roi_heads.box_predictor.cls_score.bias"][0] = 2.0  # that most of what it sees is background
    torch.save(state, base / "CHECKPOINT")
    (base / "cluster.yaml").write_text(
        yaml.safe_dump({"image": "a/b:1", "job": {"photos": "s3://photos/", "out": "s3://labels/v1"}})
    )
    (base / "VOC").mkdir()
    (base / "VOC" / "000001.xml").write_text(VOC_XML)
    return base


def _accept_one(dataset: Dataset) -> None:
    """Verdicts beside a data set, as of a person who looked at one image."""
    images = [row for commit in dataset.commits() for row in dataset.read_images(commit).to_pylist()]
    labelled = next(row["image_id"] for row in images if row["n_masks"])
    VerdictFile(verdicts_path(dataset)).say(labelled, IMAGE, "accept", ["dog"])


def _write_panoptic(base: Path, gt: dict[str, Any]) -> None:
    """Every object of a scene, and what is left as stuff: a json, and its PNGs in a folder beside it."""
    stuff = {"id": len(CLASSES) + 1, "name": "ground", "isthing": 0}
    pictures = base / "panoptic"
    pictures.mkdir()
    annotations = []
    for number, image in enumerate(gt["images"]):
        ids = np.full((image["height"], image["width"]), 500, np.int64)
        kinds = {500: stuff["id"]}
        for place, mask in enumerate(scene(number, image["height"], image["width"])[1], start=1):
            ids[mask] = place
            kinds[place] = KINDS[3 if place % 2 else 7]
        name = f"{Path(image['file_name']).stem}.png"
        (pictures / name).write_bytes(encode_png(ids))
        segments = [{"id": one, "category_id": kind, "iscrowd": 0} for one, kind in kinds.items()]
        annotations.append({"image_id": image["id"], "file_name": name, "segments_info": segments})
    things = [{**one, "isthing": 1} for one in gt["categories"]]
    content = {"images": gt["images"], "annotations": annotations, "categories": [*things, stuff]}
    (base / "panoptic.json").write_text(json.dumps(content))


def _write_mattes(base: Path) -> None:
    (base / "MATTES").mkdir()
    for number, photograph in enumerate(sorted((base / "PHOTOS").iterdir())):
        mask = scene(number, 96, 128)[1][0]
        alpha = cv2.GaussianBlur(255 * mask.astype(np.uint8), (5, 5), 0)
        cv2.imwrite(str(base / "MATTES" / f"{photograph.stem}.png"), alpha)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small weights behind registered names, small settings behind default presets."""
    path = Path(small_weights())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for name in ("densecl-r50-in1k-200ep", "densecl-r101-in1k-200ep"):
        entry = WeightsEntry(name, "resnet18", path=path, sha256=digest, size=path.stat().st_size)
        monkeypatch.setitem(WEIGHTS, name, entry)
    for presets in (PRESETS, RANDOM_PRESETS):
        for name in presets:
            kept = {key: LABELS[key] for key in LABELS if presets is PRESETS or key == "decode"}
            monkeypatch.setitem(presets, name, merged(presets[name], kept))
    for name, spec in MODELS.items():
        prompted = None if spec.pretrain_presets is None else _small(spec.pretrain_presets)
        monkeypatch.setitem(MODELS, name, replace(spec, presets=_small(spec.presets), pretrain_presets=prompted))
    for name, preset in DENSECL_PRESETS.items():
        monkeypatch.setitem(DENSECL_PRESETS, name, merged(preset, DENSECL))
