"""SOLOv2's extensions through the commands: things and stuff, mattes, grids, repeats."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from commands import complains, run
from corpus import encode, scene
from saliency_prompt.stages.panoptic import encode_png, read_ids, read_panoptic
from training_runs import small_weights, train

pytestmark = pytest.mark.slow
SIZE = ["data.short_side=64", "data.long_side=96", "data.workers=0", "trainer.precision=fp32", "trainer.max_epochs=2"]
COUNT = 6


def settings(values: list[str]) -> list[str]:
    return [word for value in values for word in ("--set", value)]


TINY = ["--preset", "tiny", "--device", "cpu", *settings(SIZE)]
ON_CPU = ["--device", "cpu"]


def write_world(folder: Path) -> Path:
    """Scenes with a panoptic json (things 3 and 7, stuff 11: the ground), a COCO file, and mattes."""
    photos, pngs, mattes = folder / "photos", folder / "panoptic", folder / "mattes"
    for one in (photos, pngs, mattes):
        one.mkdir(parents=True)
    images, annotations, instances = [], [], []
    for i in range(COUNT):
        pixels, masks = scene(i, 96, 128)
        name = f"scene_{i:03d}.png"
        (photos / name).write_bytes(encode(pixels, "PNG"))
        ids = np.full((96, 128), 500, np.int64)
        for j, mask in enumerate(masks, start=1):
            ids[mask] = j
        ids[:4] = 0
        (pngs / name).write_bytes(encode_png(ids))
        images.append({"id": 100 + i, "file_name": name, "height": 96, "width": 128})
        kinds = {
            number: 11 if number == 500 else 3 if number % 2 else 7 for number in set(np.unique(ids).tolist()) - {0}
        }
        infos = [{"id": number, "category_id": kind, "iscrowd": 0} for number, kind in kinds.items()]
        annotations.append({"image_id": 100 + i, "file_name": name, "segments_info": infos})
        for j, mask in enumerate(masks, start=1):
            rows, columns = np.nonzero(mask)
            box = [int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]
            x, y, w, h = box
            instances.append(
                {
                    "id": len(instances) + 1,
                    "image_id": 100 + i,
                    "category_id": 3 if j % 2 else 7,
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                    "bbox": box,
                    "area": w * h,
                }
            )
        alpha = cv2.GaussianBlur(255 * masks[0].astype(np.uint8), (5, 5), 0)
        (mattes / name).write_bytes(encode(np.repeat(alpha[..., None], 3, 2), "PNG"))
    things = [{"id": 3, "name": "ellipse", "isthing": 1}, {"id": 7, "name": "box", "isthing": 1}]
    categories = [*things, {"id": 11, "name": "ground", "isthing": 0}]
    (folder / "panoptic.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    (folder / "gt.json").write_text(json.dumps({"images": images, "annotations": instances, "categories": things}))
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("extended") / "world")


def test_things_and_stuff_through_the_commands(world: Path, tmp_path: Path) -> None:
    out, gt = tmp_path / "run", world / "panoptic.json"
    data = ["--images", world / "photos", "--panoptic-gt", gt]
    first = ["--model", "solov2-panoptic", *data, "--weights", small_weights(), "--out", out, *TINY]
    said = run("train", *first, "--val-images", world / "photos", "--val-gt", gt).stdout
    assert "PQ" in said
    card = json.loads((out / "run.json").read_text())
    assert (card["categories"], card["stuff"]) == ([3, 7], [11])

    report = tmp_path / "scores.json"
    said = run("evaluate", out, "--images", world / "photos", "--gt", gt, *ON_CPU, "--json", report).stdout
    assert all(word in said for word in ("PQ", "SQ", "RQ", "things", "stuff"))
    assert json.loads(report.read_text())["images"] == COUNT

    run("predict", out, world / "photos", "--out", tmp_path / "found.json", *ON_CPU)
    pictures, categories = read_panoptic(tmp_path / "found.json")
    assert len(pictures) == COUNT
    assert [one.number for one in categories] == [3, 7, 11]
    for picture in pictures:
        read_ids(tmp_path / "found" / picture.png_file, picture)  # json and PNG agree


def test_a_picture_that_disagrees_costs_itself(tmp_path: Path) -> None:
    world = write_world(tmp_path / "world")
    (world / "panoptic" / "scene_002.png").write_bytes(encode_png(np.full((96, 128), 9, np.int64)))
    outcome = train(
        tmp_path / "run",
        SIZE,
        model="solov2-panoptic",
        images=world / "photos",
        panoptic_gt=world / "panoptic.json",
    )
    assert outcome.finished
    skipped = (tmp_path / "run" / "skipped.jsonl").read_text()
    assert "scene_002.png" in skipped
    assert "scene_003.png" not in skipped


def test_mattes_through_the_commands(world: Path, tmp_path: Path) -> None:
    plain, out = tmp_path / "plain", tmp_path / "run"
    all_found = ["model.class_score=0", "model.min_score=0", "model.candidates=20"]
    train(plain, [*SIZE, *all_found], model="solov2", images=world / "photos", gt=world / "gt.json")
    first = ["--model", "solov2-matting", "--images", world / "photos", "--mattes", world / "mattes"]
    assert "--start" in complains("train", *first, "--out", out, *TINY)
    run("train", *first, "--start", plain, "--out", out, *TINY)
    card = json.loads((out / "run.json").read_text())
    assert card["categories"] == [3, 7]
    assert "head.classes.weight" in json.loads((out / "transfer.json").read_text())["transferred"]

    report = tmp_path / "scores.json"
    judged = ["--images", world / "photos", "--gt", world / "mattes", *ON_CPU]
    said = run("evaluate", out, *judged, "--json", report).stdout
    assert all(word in said for word in ("SAD", "MSE", "gradient", "connectivity"))
    assert json.loads(report.read_text())["mattes"] == COUNT
    run("predict", out, world / "photos", "--out", tmp_path / "alphas", "--min-score", "0", *ON_CPU)
    alphas = sorted((tmp_path / "alphas").glob("*.png"))
    assert len(alphas) >= COUNT
    assert [one.name for one in alphas] == sorted(one.name for one in (tmp_path / "alphas" / "previews").iterdir())


def test_a_grid_from_the_objects_is_taken_by_training(world: Path, tmp_path: Path) -> None:
    said = run("fit-grid", "--gt", world / "gt.json", "--short-side", "64", "--long-side", "96").stdout
    assert "objects" in said
    words = said.strip().splitlines()[-1].replace("'", "").split()
    assert words[0] == "--set"
    fitted = [word for word in words if word != "--set"]
    outcome = train(tmp_path / "run", [*SIZE, *fitted], model="solov2", images=world / "photos", gt=world / "gt.json")
    assert outcome.finished


def test_rare_categories_are_drawn_more_often_and_judged_as_lvis_does(world: Path, tmp_path: Path) -> None:
    content = json.loads((world / "gt.json").read_text())
    content["annotations"] = [
        one for one in content["annotations"] if one["category_id"] == 3 or one["image_id"] == 100
    ]
    for image in content["images"]:
        image["neg_category_ids"] = []
    for category, mark in zip(content["categories"], "fr", strict=True):
        category["frequency"] = mark
    (tmp_path / "gt.json").write_text(json.dumps(content))
    more = [*SIZE, "data.repeat_threshold=1", "data.batch_size=1", "trainer.max_epochs=1", "trainer.lr_batch=1"]
    outcome = train(tmp_path / "run", more, model="solov2", images=world / "photos", gt=tmp_path / "gt.json")
    assert outcome.step == round(COUNT - 1 + 6**0.5)
    judged = ["--images", world / "photos", "--gt", tmp_path / "gt.json", "--max-detections", "300", "--oracle-masks"]
    run("evaluate", tmp_path / "run", *judged, *ON_CPU, "--json", tmp_path / "scores.json")
    report = json.loads((tmp_path / "scores.json").read_text())
    assert {"AR300", "APr", "APc", "APf"} <= set(report["classes"]["segm"])
    assert "AR300" in report["class_agnostic"]["bbox"]
