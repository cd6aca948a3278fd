"""Judging things and stuff, and mattes: one bad truth costs itself alone."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from corpus import encode, scene
from saliency_prompt.models.backbones.registry import build_backbone
from saliency_prompt.models.solo.build import build_matting
from saliency_prompt.pipeline.training.matting import evaluate_mattes
from saliency_prompt.pipeline.training.model import LoadedDetector
from saliency_prompt.pipeline.training.panoptic import PanopticJudge
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.run import RunCard
from saliency_prompt.schemas.training.registry import load_training_config
from saliency_prompt.schemas.training.solo import MattingSoloTraining
from saliency_prompt.stages.panoptic import encode_png, read_ids, read_panoptic

CPU = torch.device("cpu")
SMALL = ["data.short_side=32", "data.long_side=64", "trainer.precision=fp32"]


def write_pictures(folder: Path, count: int = 4) -> Path:
    """A panoptic json of rectangles on ground, with its PNGs."""
    (folder / "panoptic").mkdir()
    images, annotations = [], []
    for i in range(count):
        ids = np.full((40, 60), 9, np.int64)
        ids[5 : 20 + i, 5:30] = 1
        (folder / "panoptic" / f"{i}.png").write_bytes(encode_png(ids))
        images.append({"id": i, "file_name": f"{i}.jpg", "height": 40, "width": 60})
        segments = [{"id": 1, "category_id": 3}, {"id": 9, "category_id": 11}]
        annotations.append({"image_id": i, "file_name": f"{i}.png", "segments_info": segments})
    categories = [{"id": 3, "name": "box", "isthing": 1}, {"id": 11, "name": "ground", "isthing": 0}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "panoptic.json").write_text(json.dumps(content))
    return folder / "panoptic.json"


def test_truths_that_cannot_be_used_are_left_out_and_named(tmp_path: Path) -> None:
    gt = write_pictures(tmp_path)
    config = load_training_config("solov2-panoptic", "tiny", overrides=SMALL)
    card = RunCard(
        recipe="panoptic",
        model="solov2-panoptic",
        config={},
        arch="resnet18",
        categories=(3,),
        class_names=("box",),
        stuff=(11,),
        stuff_names=("ground",),
    )
    judge = PanopticJudge(config, card, str(tmp_path), str(gt))
    results = [
        {"image_id": one.image_id, "png": (gt.with_suffix("") / one.png_file).read_bytes(), "segments": one.segments}
        for one in read_panoptic(gt)[0]
    ]
    pngs = gt.with_suffix("")
    (pngs / "0.png").write_bytes(b"no picture")
    (pngs / "1.png").write_bytes(encode_png(np.full((40, 60), 7, np.int64)))
    results[2]["png"] = encode_png(read_ids(pngs / "2.png", read_panoptic(gt)[0][2])[:30])  # of a smaller photograph
    scores = judge.report(results)
    assert sorted(scores.unusable) == ["0.jpg", "1.jpg", "2.jpg"]
    assert "PNG" in scores.unusable["0.jpg"]
    assert scores.report["images"] == 1
    assert scores.numbers["PQ"] == pytest.approx(100)
    assert judge.report(results[:3]).numbers["PQ"] == 0  # what was not found is missed

    (pngs / "3.png").unlink()
    with pytest.raises(UserError, match="judged"):
        judge.report(results)


def test_a_matte_of_another_size_costs_itself(tmp_path: Path) -> None:
    photos, mattes = tmp_path / "photos", tmp_path / "mattes"
    photos.mkdir()
    mattes.mkdir()
    for i in range(4):
        pixels, masks = scene(i, 40, 60)
        (photos / f"{i}.png").write_bytes(encode(pixels, "PNG"))
        alpha = 255 * masks[0].astype(np.uint8)
        cv2.imwrite(str(mattes / f"{i}.png"), alpha if i else alpha[:20])
    (photos / "1.png").write_bytes(b"no picture")
    config = load_training_config("solov2-matting", "tiny", overrides=SMALL)
    assert isinstance(config, MattingSoloTraining)
    module = build_matting(build_backbone("resnet18"), 1, config.model, matting=config.model.matting).eval()
    card = RunCard(recipe="matting", model="solov2-matting", config={}, arch="resnet18")
    scores = evaluate_mattes(LoadedDetector(module, config, card, "run", ""), str(photos), str(mattes), CPU)
    assert sorted(scores.unusable) == ["0.png", "1.png"]
    assert "60 x 40" in scores.unusable["0.png"]
    assert scores.report["mattes"] == 2
    assert scores.numbers["sad"] > 0  # nothing is found: a matte against nothing
