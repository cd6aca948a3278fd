"""`export` and `dataset`: every command with its options, and their mistakes."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from makers import Maker
from saliency_prompt.cli.app import app
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.store.dataset import Dataset
from saliency_prompt.store.objects import open_store


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    url = str(tmp_path / "labels")
    Maker().complete(open_store(url))
    return url


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(
    ("command", "target", "options", "written"),
    [
        ("coco", "x.json", ["--polygons"], ["x-train.json", "x-val.json"]),
        ("cvat", "x.xml", ["--polygons", "--tolerance", 2], ["x-train.xml", "x-val.xml"]),
        ("label-studio", "x.json", ["--photos-url", "https://photos/"], ["x-train.json", "x-val.json"]),
        ("png", "x", ["--each"], ["x/masks.csv"]),
        ("yolo", "x", ["--images", "none"], ["x/data.yaml"]),
        ("fiftyone", "x", ["--images", "none"], ["x/train/labels.json", "x/val/labels.json"]),
    ],
)
def test_every_format_has_a_command(dataset: str, tmp_path: Path, command, target, options, written) -> None:
    choice = ["--min-score", 0.6, "--top", 2, "--min-area", 10, "--split", "0.8/0.2", "--names", "thing"]
    said = invoke("export", command, dataset, tmp_path / target, *choice, *options)
    assert "wrote" in said
    assert all((tmp_path / name).is_file() for name in written)


def test_names_and_choices_reach_the_file(dataset: str, tmp_path: Path) -> None:
    invoke("export", "coco", dataset, tmp_path / "x.json", "--min-score", 0.8, "--names", "thing")
    content = json.loads((tmp_path / "x.json").read_text())
    assert content["categories"][0]["name"] == "thing"
    assert min(one["score"] for one in content["annotations"]) >= 0.8


def test_photographs_that_are_gone_are_said(dataset: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="None of the photographs"):
        invoke("export", "hugging-face", dataset, tmp_path / "h")


def test_data_sets_are_made_of_data_sets(dataset: str, tmp_path: Path) -> None:
    def path(name: str) -> str:
        return str(tmp_path / name)

    assert "sealed" in invoke("dataset", "filter", dataset, "--out", path("f"), "--top", 1, "--max-share", 0.5)
    assert "7 images" in invoke("dataset", "sample", dataset, "--out", path("s"), "--images", 7)
    invoke("dataset", "split", dataset, "--out", path("p"), "--shares", "0.6/0.2/0.2")
    parts = [path(f"p-{name}") for name in ("train", "val", "test")]
    assert [Dataset.open(part).card.n_images for part in parts] == [15, 5, 5]
    assert "25 images" in invoke("dataset", "merge", *parts, "--out", path("m"))
    assert "sealed" in invoke("dataset", "dedup", dataset, "--out", path("d"))
    with pytest.raises(UserError, match="two data sets or more"):
        invoke("dataset", "merge", dataset, "--out", path("x"))


def test_help_in_short(dataset: str) -> None:
    assert "Data sets" in invoke("-h")
    assert "--min-score" in invoke("export", "coco", "-h")
