"""The commands that train, from photographs to a model that is evaluated, each as a user types it."""

import json
from pathlib import Path
from typing import Any

import cv2
import pytest
from pycocotools import mask as coco_mask

from commands import complains, run
from corpus import write_scenes
from saliency_prompt.store.dataset import Dataset
from training_runs import small_weights

pytestmark = pytest.mark.slow
DENSECL = ["photos.side=48", "augment.size=64", "model.queue=16", "train.precision=fp32"]
LABELS = ["decode.short_side=128", "decode.long_side=256", "filters.min_score=0.0", "features.precision=fp32"]
MODEL = ["data.short_side=64", "data.long_side=96", "data.workers=0", "model.queries=8", "trainer.precision=fp32"]


def settings(values: list[str]) -> list[str]:
    return [word for value in values for word in ("--set", value)]


def test_from_photographs_to_an_evaluated_model(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    gt = write_scenes(photos, 12)
    annotated = ["--images", photos, "--gt", gt]

    small = ["--arch", "resnet18", "--epochs", "1", "--batch-size", "4", "--device", "cpu"]
    said = run("densecl", photos, "--out", out / "densecl", *small, *settings(DENSECL)).stderr
    assert "step 3/3" in said
    weights = tmp_path / "backbone.safetensors"
    assert "sha256" in run("densecl", "export", out / "densecl", weights).stdout
    photo = photos / "scene_000.png"
    said = run("densecl", "correspond", out / "densecl", photo, "--out", tmp_path / "match.png").stdout
    assert "mutual matches" in said
    assert cv2.imread(str(tmp_path / "match.png")) is not None

    run("generate", photos, "--out", out / "data", "--weights", weights, *settings(LABELS))
    tiny = ["--preset", "tiny", "--device", "cpu", *settings([*MODEL, "trainer.max_epochs=1"])]
    first = ["--images", photos, "--model", "knet", "--weights", weights, "--assigner", "sequential"]
    run("pretrain", out / "data", *first, "--out", out / "pre", *tiny)
    validation = ["--val-images", photos, "--val-gt", gt]
    said = run(
        "finetune", out / "pre", *annotated, *validation, "--fraction", "50", "--out", out / "fine", *tiny
    ).stdout
    assert "began anew" in said
    assert len(json.loads((out / "fine" / "subset.json").read_text())["50.0"]["1"]) == 6

    found = tmp_path / "predictions.json"
    few = ["--min-score", "0", "--device", "cpu"]
    run("predict", out / "fine", photos, "--out", found, "--overlays", tmp_path / "overlays", *few)
    assert {one["category_id"] for one in json.loads(found.read_text())} <= {3, 7}
    assert len(list((tmp_path / "overlays").iterdir())) == 12
    report = tmp_path / "scores.json"
    scored = tmp_path / "scored.json"
    run("predict", out / "fine", photos, "--out", scored, "--ids-of", gt, *few)
    wanted = {image["id"] for image in json.loads(gt.read_text())["images"]}
    assert {one["image_id"] for one in json.loads(scored.read_text())} <= wanted
    said = run("evaluate", scored, "--gt", gt, "--images", photos, "--json", report).stdout
    assert "12 images with " in said
    by_results = json.loads(report.read_text())["class_agnostic"]
    run("evaluate", out / "fine", *annotated, "--device", "cpu", "--json", report)
    by_run = json.loads(report.read_text())["class_agnostic"]
    assert by_run["images"] == by_results["images"] == 12
    assert by_run["objects"] == by_results["objects"]
    assert by_run["segm"]["AP"] == pytest.approx(by_results["segm"]["AP"], abs=0.5)

    labels = ["--model", out / "fine", "--device", "cpu", "--set", "detect.min_score=0", "--set", "detect.vectors=true"]
    same = ["detect.one_label=false", "detect.precision=fp32", "plan.shard_size=5"]
    run("generate", photos, "--out", out / "labels", *labels, *settings(same))
    agrees(Dataset.open(str(out / "labels")), json.loads(found.read_text()))
    run("generate", "--from", out / "labels", "--out", out / "again", *labels)
    child, parent = Dataset.open(str(out / "again")), Dataset.open(str(out / "labels"))
    assert parent.sealed is not None
    assert (child.card.parent, child.card.shard_size) == (parent.sealed.root_hash, 5)
    assert "no problem" in run("verify", out / "again").stdout

    said = run("kernels", out / "fine", "--images", photos, "--out", tmp_path / "kernels.png", "--device", "cpu").stdout
    assert json.loads(said)
    said = run("curves", out / "pre", out / "fine", "--out", tmp_path / "curves.png").stdout
    assert "loss" in said
    for picture in ("kernels.png", "curves.png"):
        assert cv2.imread(str(tmp_path / picture)) is not None


def agrees(dataset: Dataset, predictions: list[dict[str, Any]]) -> None:
    """The data set holds what `predict` found: its best masks have the same scores and pixels, nearly."""
    best: dict[int, list[dict[str, Any]]] = {}
    for one in predictions:
        best.setdefault(one["image_id"], []).append(one)
    compared = 0
    for commit in dataset.commits():
        for row in dataset.read_shard(commit).masks.to_pylist():
            if row["rank"] < 3:
                other = best[row["image_id"]][row["rank"]]
                assert row["score"] == pytest.approx(other["score"], abs=1e-4)
                mine = {"size": [row["height"], row["width"]], "counts": row["counts"]}
                assert coco_mask.iou([mine], [other["segmentation"]], [0])[0, 0] > 0.99
                compared += 1
    assert compared == 36


def test_mistakes(tmp_path: Path) -> None:
    gt = write_scenes(tmp_path / "photos", 2)
    annotated = ["--images", tmp_path / "photos", "--gt", gt]
    assert "training run" in complains("densecl", "export", tmp_path, tmp_path / "backbone.safetensors")
    assert "--val-gt" in complains(
        "finetune", "random", *annotated, "--val-images", tmp_path, "--out", tmp_path / "run"
    )
    assert "cosine" in complains(
        "pretrain", tmp_path / "data", "--weights", "random", "--assigner", "nearest", "--out", tmp_path / "run"
    )
    complains("predict", tmp_path, tmp_path / "photos", "--out", tmp_path / "predictions.json")
    assert "cityscapes" in complains("convert", "pascal", tmp_path, tmp_path / "out.json")
    assert not (tmp_path / "run").exists()


def test_mistakes_of_labelling_with_a_model(tmp_path: Path) -> None:
    write_scenes(tmp_path / "photos", 2)
    data = ["generate", tmp_path / "photos", "--out", tmp_path / "data"]
    assert "holds no" in complains(*data, "--model", tmp_path / "nowhere")
    assert "--model has its own" in complains(*data, "--model", tmp_path, "--weights", "random")
    assert "detect.threshold" in complains(*data, "--model", tmp_path, "--set", "detect.treshold=0.4")
    assert "Name the photographs" in complains("generate", "--out", tmp_path / "data")
    assert "not a data set" in complains("generate", "--from", tmp_path, "--out", tmp_path / "data")
    assert not (tmp_path / "data" / "dataset.json").exists()


def test_freesolo_from_free_masks_to_few_labels(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    gt = write_scenes(photos, 6)
    weights = small_weights()
    free = [*LABELS, "filters.keep_best=true"]
    run("generate", photos, "--out", out / "free", "--weights", weights, *settings(free))
    small = ["data.short_side=64", "data.long_side=96", "data.workers=0", "trainer.precision=fp32"]
    small += ["trainer.max_epochs=1", "model.class_score=0.001", "model.min_score=0.0"]
    command = ["freesolo", out / "free", "--preset", "tiny", "--weights", weights, "--rounds", "2", "--min-score", "0"]
    command += ["--out", out / "work", "--device", "cpu", *settings(small)]
    said = run(*command, "--images", photos).stdout
    assert "round 1:" in said
    assert f"generate PHOTOS --model {out / 'work' / 'round-1'}" in said
    assert run(*command, "--images", photos).stdout == said  # all is there: the same root hashes
    parent = json.loads(run("status", out / "work" / "labels-1", "--json").stdout)["parent"]
    assert parent == json.loads(run("status", out / "work" / "labels-0", "--json").stdout)["root_hash"]
    assert "made from" in run("status", out / "work" / "labels-0").stdout

    tune = ["finetune", out / "work" / "round-1", "--images", photos, "--gt", gt, "--preset", "tiny"]
    tune += ["--mask-fraction", "50", "--out", out / "tuned", "--device", "cpu", *settings(small[:5])]
    said = run(*tune).stdout
    assert "2 began anew" in said
    assert "AP" in run("evaluate", out / "work" / "labels-1", "--gt", gt, "--boxes").stdout
