"""Anybody's masks and random rectangles as data sets: complete, verified, resumable, fit to train on."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from commands import complains, run
from corpus import write_scenes
from saliency_prompt.pipeline.export.coco import export_coco
from saliency_prompt.pipeline.export.png import export_png
from saliency_prompt.pipeline.export.yolo import export_yolo
from saliency_prompt.stages.instances.reader import PseudoLabelDataset
from saliency_prompt.store.check import verify
from saliency_prompt.store.dataset import Dataset

SETTINGS = ["--weights", "lab-color", "--set", "decode.short_side=160", "--set", "plan.shard_size=5"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("scenes")
    gt = write_scenes(base / "photos", 8)
    gt.rename(base / "gt.json")
    return base


def masks_of(dataset: Dataset) -> dict[str, list[tuple[bytes, int]]]:
    found: dict[str, list[tuple[bytes, int]]] = {}
    for commit in dataset.commits():
        tables = dataset.read_shard(commit)
        for row in tables.images.to_pylist():
            part = tables.masks.slice(row["first_mask"], row["n_masks"])
            found[row["file_name"]] = list(zip(part["counts"].to_pylist(), part["label"].to_pylist(), strict=True))
    return found


def test_coco_instances_come_in_whole(scenes: Path, tmp_path: Path) -> None:
    gt = json.loads((scenes / "gt.json").read_text())
    arguments = ["import-masks", scenes / "gt.json", "--photos", scenes / "photos", "--out", tmp_path / "d", *SETTINGS]
    run(*map(str, arguments))
    dataset = Dataset.open(str(tmp_path / "d"))
    assert verify(dataset).problems == []
    assert (dataset.card.producer, dataset.card.format_version) == ("imported", 2)
    assert dataset.counts().masks == len([one for one in gt["annotations"] if not one.get("iscrowd")])
    sizes = {image["file_name"]: (image["id"], image["height"], image["width"]) for image in gt["images"]}
    order = sorted(category["id"] for category in gt["categories"])
    for name, masks in masks_of(dataset).items():
        image_id, height, width = sizes[name]
        wanted = {
            (_packed(one["segmentation"], height, width), order.index(one["category_id"]))
            for one in gt["annotations"]
            if one["image_id"] == image_id
        }
        assert set(masks) == wanted
    root_hash = dataset.sealed.root_hash
    run(*map(str, arguments))  # resumes: nothing to do
    assert Dataset.open(str(tmp_path / "d")).sealed.root_hash == root_hash

    target = PseudoLabelDataset(str(tmp_path / "d"), vectors=("seed", "box_mean"))[0]
    seeds = target[1]["vectors"]["seed"]
    torch.testing.assert_close(seeds.norm(dim=1), torch.ones(len(seeds)), atol=1e-3, rtol=0)


def _packed(segmentation: object, height: int, width: int) -> bytes:
    if isinstance(segmentation, list):
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))["counts"]
    if isinstance(segmentation["counts"], list):
        return coco_mask.frPyObjects(segmentation, height, width)["counts"]
    return segmentation["counts"].encode()


def test_what_was_exported_comes_in_again(scenes: Path, tmp_path: Path) -> None:
    photos = str(scenes / "photos")
    run("import-masks", str(scenes / "gt.json"), "--photos", photos, "--out", str(tmp_path / "first"), *SETTINGS)
    first = Dataset.open(str(tmp_path / "first"))
    export_coco(first, str(tmp_path / "again.json"), polygons=True)
    export_png(first, str(tmp_path / "png"), each=True)
    export_yolo(first, str(tmp_path / "yolo"), tolerance=0)
    expected = masks_of(first)
    for name, place in (("coco", "again.json"), ("png", "png"), ("yolo", "yolo")):
        out = str(tmp_path / f"from {name}")
        run("import-masks", str(tmp_path / place), "--photos", photos, "--out", out, "--format", name, *SETTINGS)
        again = masks_of(Dataset.open(out))
        assert {key: len(value) for key, value in again.items()} == {key: len(value) for key, value in expected.items()}
        if name != "yolo":  # whose six digits may move a pixel
            counts = {key: {one[0] for one in value} for key, value in again.items()}
            assert counts == {key: {one[0] for one in value} for key, value in expected.items()}


def test_masks_that_changed_do_not_go_on(scenes: Path, tmp_path: Path) -> None:
    path = tmp_path / "gt.json"
    content = json.loads((scenes / "gt.json").read_text())
    path.write_text(json.dumps(content))
    arguments = ["import-masks", str(path), "--photos", str(scenes / "photos"), "--out", str(tmp_path / "d"), *SETTINGS]
    run(*arguments)
    content["annotations"].pop()
    path.write_text(json.dumps(content))
    assert "masks.sha256" in complains(*arguments)


def test_masks_need_photographs_and_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("[]")
    said = complains("import-masks", str(tmp_path / "results.json"), "--out", str(tmp_path / "d"))
    assert "--photos" in said
    said = complains("import-masks", str(tmp_path / "none"), "--photos", str(tmp_path), "--out", str(tmp_path / "d"))
    assert "does not exist" in said or "no image" in said


def test_random_rectangles(scenes: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "random")
    run("generate", str(scenes / "photos"), "--producer", "random", "--out", out, *SETTINGS)
    dataset = Dataset.open(out)
    assert verify(dataset).problems == []
    assert dataset.counts().masks == 80
    for commit in dataset.commits():
        tables = dataset.read_shard(commit)
        assert set(tables.masks["source"].to_pylist()) == {"random"}
        assert set(tables.vectors) == {"seed", "box_mean"}
        bbox = np.array(tables.masks["bbox"].to_pylist())
        np.testing.assert_array_equal(bbox[:, 2] * bbox[:, 3], tables.masks["area"].to_numpy())
    assert "import-masks" in complains(
        "generate", str(scenes / "photos"), "--producer", "imported", "--out", out, *SETTINGS
    )
