"""The program from Python, as its docstrings show it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import saliency_prompt as sp
from corpus import encode, scene
from saliency_prompt.pipeline.training.job import TrainingJob
from saliency_prompt.schemas.errors import UserError
from training_runs import small_weights


def test_importing_it_waits_for_nothing() -> None:
    program = "import sys, saliency_prompt as sp; sp.__version__; print('torch' in sys.modules, sp.UserError, dir(sp))"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.startswith("False")
    assert "propose" in said
    assert all(hasattr(sp, name) for name in sp.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = sp.nonsense


def test_propose_takes_what_people_have(tmp_path: Path) -> None:
    pixels, _ = scene(3, 120, 160)
    path = tmp_path / "photo.png"
    path.write_bytes(encode(pixels, "PNG"))
    settings = ["decode.short_side=160", "filters.min_score=0.0", "filters.keep_best=true"]
    found = sp.propose(path, settings=settings)
    assert len(found) > 0
    assert found.masks.shape == (len(found), 120, 160)
    assert found.boxes.shape == (len(found), 4)
    assert (np.diff(found.scores) <= 0).all()
    assert found.vectors["seed"].shape[0] == len(found)
    for mask, (left, top, right, bottom) in zip(found.masks, found.boxes, strict=True):
        rows, columns = np.nonzero(mask)
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (left, top, right, bottom)
    for other in (str(path), Image.fromarray(pixels), pixels):
        again = sp.propose(other, settings=settings)
        assert [rle["counts"] for rle in again.rles] == [rle["counts"] for rle in found.rles]
    assert len(sp.propose(path)) >= 0


@pytest.mark.parametrize("bad", ["missing.jpg", np.zeros((4, 4, 3)), np.zeros((4, 4, 7), np.uint8)])
def test_what_is_no_image_is_one_sentence(bad: Any) -> None:
    with pytest.raises(sp.UserError):
        sp.propose(bad)


def test_lists() -> None:
    assert "resnet50" in sp.list_backbones()
    assert {"saliency", "detector"} <= set(sp.list_producers())
    assert {"knet", "mask2former", "solov2", "maskrcnn"} <= set(sp.list_models())
    assert "supervised" in sp.list_recipes()
    assert sp.load_backbone("lab-color").arch == "lab-color"


@pytest.mark.slow
def test_from_photographs_to_labels_by_a_trained_model(labelled: Any, tmp_path: Path) -> None:
    dataset = sp.generate(labelled.photos, tmp_path / "labels", weights="lab-color", settings=["decode.short_side=128"])
    assert dataset.sealed is not None
    assert sp.open_dataset(tmp_path / "labels").sealed == dataset.sealed
    assert "AR100" in sp.evaluate(tmp_path / "labels", labelled.gt)["segm"]
    small = ["data.short_side=64", "data.long_side=96", "data.workers=0", "model.queries=6", "trainer.precision=fp32"]
    outcome = sp.train(
        tmp_path / "run",
        images=labelled.photos,
        gt=labelled.gt,
        weights=small_weights(),
        preset="tiny",
        settings=small,
        max_steps=2,
        device="cpu",
    )
    assert outcome.step == 2
    model = sp.load_model(tmp_path / "run", min_score=0.0, device="cpu")
    assert model.categories == (3, 7)
    photo = labelled.photos / "scene_000.png"
    found = model.find(photo)
    assert len(found.columns["label"]) == len(found)
    assert len(model.find(cv2.imread(str(photo))[..., ::-1].copy())) == len(found)
    assert "class_agnostic" in sp.evaluate(tmp_path / "run", labelled.gt, images=labelled.photos, device="cpu")
    again = sp.generate(labelled.photos, tmp_path / "more", model=tmp_path / "run", device="cpu")
    assert again.card.producer == "detector"


def test_training_takes_things_and_stuff_and_mattes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[TrainingJob] = []
    monkeypatch.setattr(TrainingJob, "run", lambda job, *_: jobs.append(job))
    given = {"images": tmp_path, "preset": "tiny", "device": "cpu"}
    sp.train(tmp_path / "a", model="solov2-panoptic", panoptic_gt=tmp_path / "p.json", weights="random", **given)
    sp.train(tmp_path / "b", model="solov2-matting", mattes=tmp_path / "alphas", start=tmp_path / "a", **given)
    assert [job.recipe for job in jobs] == ["panoptic", "matting"]
    assert jobs[0].inputs.panoptic_gt == str(tmp_path / "p.json")
    assert (jobs[1].inputs.mattes, jobs[1].inputs.start) == (str(tmp_path / "alphas"), str(tmp_path / "a"))
    for both in ({}, {"gt": "a.json", "panoptic_gt": "b.json"}):
        with pytest.raises(UserError, match="one thing"):
            sp.train(tmp_path / "c", weights="random", **given, **both)
