"""Verdicts on a data set, heeded by exports, filters and the training reader."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from makers import Photographed
from saliency_prompt.cli.app import app
from saliency_prompt.pipeline.derive import MaskFilter, filter_masks
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.stages.instances.reader import PseudoLabelDataset
from saliency_prompt.store.dataset import Dataset
from saliency_prompt.store.objects import open_store
from saliency_prompt.store.reviewed import Reviewed
from saliency_prompt.store.verdicts import IMAGE, VerdictFile, mask_key, verdicts_path


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    maker = Photographed(tmp_path / "photos")
    made = maker.dataset(open_store(str(tmp_path / "labels")), 12, 5, source=str(tmp_path / "photos"))
    for shard in range(made.card.n_shards):
        maker.commit(made, shard)
    made.seal()
    return made


def rows_of(dataset: Dataset) -> list[dict[str, Any]]:
    return [row for commit in dataset.commits() for row in dataset.read_masks(commit).to_pylist()]


@pytest.fixture
def said(dataset: Dataset) -> dict[str, Any]:
    """One image rejected, a mask of another rejected, a third image accepted."""
    rows = rows_of(dataset)
    images = list(dict.fromkeys(row["image_id"] for row in rows))
    file = VerdictFile(verdicts_path(dataset))
    file.say(images[0], IMAGE, "reject", [])
    mask = next(row for row in rows if row["image_id"] == images[1])
    file.say(images[1], mask_key(mask["counts"], mask["height"], mask["width"]), "reject", ["shadow"])
    file.say(images[2], IMAGE, "accept", [])
    left = [row for row in rows if row["image_id"] != images[0] and row is not mask]
    return {"images": images, "left": left, "accepted": [row for row in rows if row["image_id"] == images[2]]}


def test_export_heeds_them(dataset: Dataset, said: dict[str, Any], tmp_path: Path) -> None:
    def exported(*options: str) -> tuple[set[int], int]:
        target = tmp_path / "out.json"
        result = CliRunner().invoke(app, ["export", "coco", dataset.url, str(target), *options])
        assert result.exit_code == 0, result.output
        content = json.loads(target.read_text())
        return {image["id"] for image in content["images"]}, len(content["annotations"])

    everything, count = exported()
    assert count == len(rows_of(dataset))
    assert exported("--reviewed", "not-rejected") == (everything - {said["images"][0]}, len(said["left"]))
    assert exported("--reviewed", "accepted") == ({said["images"][2]}, len(said["accepted"]))
    moved = tmp_path / "mine.jsonl"
    verdicts_path(dataset).rename(moved)
    assert exported("--verdicts", str(moved)) == (everything - {said["images"][0]}, len(said["left"]))
    result = CliRunner().invoke(app, ["export", "coco", dataset.url, str(tmp_path / "x"), "--reviewed", "accepted"])
    assert isinstance(result.exception, UserError)


def test_a_filtered_data_set_says_by_which_verdicts(dataset: Dataset, said: dict[str, Any], tmp_path: Path) -> None:
    def filtered() -> Dataset:
        wanted = MaskFilter(reviewed=Reviewed.open(dataset, "not-rejected"))
        return filter_masks(dataset.url, str(tmp_path / "new"), wanted)[0]

    made = filtered()
    assert [row["counts"] for row in rows_of(made)] == [row["counts"] for row in said["left"]]
    assert made.card.derivation is not None
    about = made.card.derivation.options["reviewed"]
    assert about["verdicts_sha256"] == VerdictFile(verdicts_path(dataset)).digest()
    assert filtered().sealed == made.sealed  # the same again resumes
    VerdictFile(verdicts_path(dataset)).say(said["images"][3], IMAGE, "reject", [])
    with pytest.raises(UserError, match="another data set"):
        filtered()
    # verdicts name masks, not ranks: those of the first data set hold for the second
    again = Reviewed.open(made, "accepted", str(verdicts_path(dataset)))
    kept = [row for commit in made.commits() for row in again.keeps_rows(made.read_masks(commit)).tolist()]
    assert sum(kept) == len(said["accepted"])


def test_tags_choose(dataset: Dataset, said: dict[str, Any], tmp_path: Path) -> None:
    image = said["images"][4]
    VerdictFile(verdicts_path(dataset)).say(image, IMAGE, None, ["dog"])
    target = str(tmp_path / "dogs")
    result = CliRunner().invoke(
        app, ["dataset", "filter", dataset.url, "--out", target, "--tag", "dog", "--drop-empty"]
    )
    assert result.exit_code == 0, result.output
    assert {row["image_id"] for row in rows_of(Dataset.open(target))} == {image}


def test_the_training_reader_heeds_them(dataset: Dataset, said: dict[str, Any]) -> None:
    def read(**options: Any) -> dict[int, int]:
        return {target["image_id"]: len(target["masks"]) for _, target in PseudoLabelDataset(dataset.url, **options)}

    everything = read()
    heeded = read(reviewed=True)
    assert sum(everything.values()) == len(rows_of(dataset))
    assert sum(heeded.values()) == len(said["left"])
    assert said["images"][0] not in heeded
    assert read(reviewed="accepted") == {said["images"][2]: len(said["accepted"])}
