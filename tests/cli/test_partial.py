"""Partial supervision through the commands: boxes for all classes, masks for some."""

import json
from pathlib import Path

import cv2
import pytest

from commands import complains, run
from corpus import write_scenes
from saliency_prompt.schemas.errors import UserError
from training_runs import small_weights, train

pytestmark = pytest.mark.slow
SIZE = ["data.short_side=64", "data.long_side=96", "data.workers=0", "trainer.precision=fp32", "trainer.max_epochs=2"]
LABELS = ["decode.short_side=128", "decode.long_side=256", "filters.min_score=0.0", "features.precision=fp32"]


def settings(values: list[str]) -> list[str]:
    return [word for value in values for word in ("--set", value)]


TINY = ["--preset", "tiny", "--device", "cpu", *settings(SIZE)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Photographs and a file in which boxes have no mask."""
    folder = tmp_path_factory.mktemp("partial")
    gt = write_scenes(folder / "photos", 8)
    content = json.loads(gt.read_text())
    for one in content["annotations"]:
        if one["category_id"] == 7:
            del one["segmentation"]
    (folder / "boxes.json").write_text(json.dumps(content))
    return folder / "photos", gt


def test_base_classes_through_the_commands(world: tuple[Path, Path], tmp_path: Path) -> None:
    photos, gt = world
    boxes = gt.with_name("boxes.json")
    names = tmp_path / "base.txt"
    names.write_text("# those with masks\nellipse\n")
    out, weights = tmp_path / "run", ["--weights", small_weights()]
    first = ["--images", photos, "--gt", boxes, "--base", names, *weights, "--out", out]
    run("train", "--model", "contrastmask", *first, *TINY, "--val-images", photos, "--val-gt", gt)
    card = json.loads((out / "run.json").read_text())
    assert card["base"] == [3]
    assert card["class_names"] == ["ellipse", "box"]
    evaluated = [json.loads(line) for line in (out / "evaluations.jsonl").read_text().splitlines()]
    assert {"AP_novel", "AP_base"} <= set(json.dumps(evaluated[-1]).replace('"', " ").split())
    assert "done:" in run("train", "--model", "contrastmask", *first, *TINY).stdout  # there is nothing left to do
    other = [*first[:5], "box", *weights, "--out", out]
    assert "base classes" in complains("train", "--model", "contrastmask", *other, *TINY)

    judged = ["--images", photos, "--gt", gt, "--device", "cpu"]
    report = tmp_path / "scores.json"
    said = run("evaluate", out, *judged, "--classes", "novel", "--json", report).stdout
    assert "novel segm" in said
    assert set(json.loads(report.read_text())) == {"novel"}
    run("evaluate", out, *judged, "--oracle-masks", "--json", report)
    assert set(json.loads(report.read_text())) == {"class_agnostic", "classes", "novel", "base"}
    assert "boxes but no masks" in complains("evaluate", out, "--images", photos, "--gt", boxes, "--device", "cpu")

    picture = tmp_path / "maps.png"
    look = ["contrast", out, photos / "scene_000.png", "--min-score", "0", "--most", "2", "--device", "cpu"]
    said = run(*look, "--out", picture).stdout
    assert "wrote" in said
    assert cv2.imread(str(picture)) is not None


def test_mask_r_cnn_on_pseudo_masks_and_as_a_producer(world: tuple[Path, Path], tmp_path: Path) -> None:
    photos, gt = world
    boxes, weights = gt.with_name("boxes.json"), ["--weights", small_weights()]
    labels, out = tmp_path / "labels", tmp_path / "run"
    run("generate", photos, "--out", labels, *weights, *settings(LABELS))
    model = ["--model", "maskrcnn", *weights, *TINY]
    run("train", labels, *model, "--out", tmp_path / "agnostic")

    run("train", *model, "--images", photos, "--gt", boxes, "--pseudo", labels, "--out", out)
    card = json.loads((out / "run.json").read_text())
    assert card["pseudo"]
    assert card["base"] == []
    said = complains("evaluate", out, "--images", photos, "--gt", gt, "--classes", "novel", "--device", "cpu")
    assert "--base" in said
    assert "contrastive head" in complains("contrast", out, photos / "scene_000.png", "--out", tmp_path / "m.png")

    made = ["--model", out, "--device", "cpu", "--set", "detect.min_score=0"]
    run("generate", photos, "--out", tmp_path / "made", *made)
    assert "no problem" in run("verify", tmp_path / "made").stdout


@pytest.mark.parametrize(
    ("model", "more", "word"),
    [
        ("mask2former", {}, "train queryinst, maskrcnn, contrastmask"),
        ("knet", {"base": "ellipse"}, "leave --base out"),
        ("maskrcnn", {"base": "elipse"}, "did you mean 'ellipse'"),
        ("maskrcnn", {"base": "# nothing"}, "no base class"),
        ("maskrcnn", {"base": "ellipse,box"}, "no novel class"),
        ("maskrcnn", {"base": "voc"}, "airplane"),
        ("maskrcnn", {"pseudo": "/nowhere"}, "/nowhere"),
    ],
)
def test_what_cannot_be_is_said(
    world: tuple[Path, Path], tmp_path: Path, model: str, more: dict[str, str], word: str
) -> None:
    photos, gt = world
    with pytest.raises(UserError, match=word):
        train(tmp_path / "run", SIZE, model=model, images=photos, gt=gt.with_name("boxes.json"), **more)
