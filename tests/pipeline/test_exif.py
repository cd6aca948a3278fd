"""Photographs held upright are labelled upright, and readers see them as the labels do."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from corpus import encode, exif, scene, write_scenes
from saliency_prompt.cli.app import app
from saliency_prompt.pipeline.plan import resolve_config
from saliency_prompt.pipeline.sources import open_source
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.load import parse_config
from saliency_prompt.stages.instances.reader import PseudoLabelDataset
from saliency_prompt.stages.producers.saliency.producer import load_saliency


@pytest.fixture
def phone(tmp_path: Path) -> Path:
    """A folder with one scene as a phone stores it: lying, with orientation 6."""
    folder = tmp_path / "phone"
    folder.mkdir()
    image = scene(0, 120, 160)[0]
    (folder / "held.jpg").write_bytes(encode(np.ascontiguousarray(np.rot90(image)), exif=exif(6), quality=95))
    (folder / "plain.jpg").write_bytes(encode(image, quality=95))
    return folder


def test_folders_are_turned_and_readers_agree(world, phone: Path, rows) -> None:
    dataset, _ = world.run(phone, "out", "filters.min_score=0", "filters.min_center_y=null", "filters.max_width=null")
    assert dataset.card.config["decode"]["exif"] == "apply"
    found = rows(dataset)
    assert [(row["height"], row["width"]) for row in found.values()] == [(120, 160)] * 2
    assert found["held.jpg"]["n_masks"] > 0
    samples = PseudoLabelDataset(dataset.url)
    images = {target["file_name"]: (image, target) for image, target in (samples[i] for i in range(len(samples)))}
    held, plain = images["held.jpg"], images["plain.jpg"]
    assert held[0].shape == plain[0].shape == (3, 120, 160)
    assert (held[0].float() - plain[0].float()).abs().mean() < 5  # the same scene, but for JPEG's noise
    assert tuple(held[1]["masks"].shape[1:]) == (120, 160)


def test_what_auto_means_depends_on_the_source(world, phone: Path, tmp_path: Path) -> None:
    gt = write_scenes(tmp_path / "gt", 1)
    (tmp_path / "list.txt").write_text("phone/held.jpg\n")
    meant = {
        source: world.run(source, f"out{i}")[0].card.config["decode"]["exif"]
        for i, source in enumerate((str(phone), f"{phone}/*.jpg", str(tmp_path / "list.txt")))
    }
    assert set(meant.values()) == {"apply"}
    dataset, _ = world.run(gt, "coco", root=str(tmp_path / "gt"))
    assert dataset.card.config["decode"]["exif"] == "ignore"


@pytest.mark.parametrize("setting", ["ignore", "apply"])
def test_a_data_set_keeps_its_setting(world, phone: Path, setting: str) -> None:
    first, _ = world.run(phone, "out", f"decode.exif={setting}")
    again, _ = world.run(phone, "out")  # nothing said: what it began with
    assert again.card.fingerprint == first.card.fingerprint
    assert parse_config(again.card.config).decode.exif == setting
    other = {"ignore": "apply", "apply": "ignore"}[setting]
    with pytest.raises(UserError, match=r"decode\.exif was"):
        world.run(phone, "out", f"decode.exif={other}")


def test_auto_is_resolved_once_the_source_is_known(world, phone: Path) -> None:
    import torch

    config = world.config()
    loaded = load_saliency(config)
    assert resolve_config(config, loaded.facts, torch.device("cpu")).decode.exif == "auto"
    known = resolve_config(config, loaded.facts, torch.device("cpu"), open_source(str(phone)))
    assert known.decode.exif == "apply"


@pytest.mark.parametrize(("setting", "words"), [("auto", "are turned"), ("ignore", "are left lying")])
def test_a_plan_says_how_many_are_rotated(phone: Path, tmp_path: Path, setting: str, words: str) -> None:
    for number in range(7):
        shutil.copy(phone / "held.jpg", phone / f"{number}.jpg")
    (phone / "plain.jpg").unlink()
    small = ["--set", "decode.short_side=96", "--set", f"decode.exif={setting}", "--weights", "lab-color"]
    result = CliRunner().invoke(app, ["plan", str(phone), "--out", str(tmp_path / "out"), *small, "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert f"4 of these 4 images {words}" in result.output
