"""`annotate` on the command line, with toys for models: at once, in passes, from masks, and a dry run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("transformers")

from corpus import write_photos
from saliency_prompt.cli.app import app
from saliency_prompt.stages.producers.annotate.roles import Boxes
from saliency_prompt.stages.producers.registry import LOADERS
from saliency_prompt.store.check import verify
from saliency_prompt.store.dataset import Dataset
from toy_roles import Toy, load_toys

SMALL = ["--set", "decode.short_side=64", "--set", "decode.long_side=4096", "--set", "plan.shard_size=2"]
SMALL += ["--set", "annotate.batch_size=2", "--device", "cpu"]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(LOADERS, "annotate", load_toys)
    folder = tmp_path / "photos"
    folder.mkdir()
    write_photos(folder, 4)
    (folder / "poison.png").write_bytes(b"\x89PNG\r\n\x1a\n rubbish")
    return folder


def annotate(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["annotate", *map(str, arguments), *SMALL])


def pairs_of(folder: Path) -> list[dict[str, Any]]:
    dataset = Dataset.open(str(folder))
    assert verify(dataset).problems == []
    return [row for commit in dataset.commits() for row in dataset.read_masks(commit).to_pylist()]


def test_passes_lie_beside_and_go_on_where_they_stopped(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for _ in range(2):  # the second finds all done
        assert annotate(photos, "--branch", "tags", "--passes", "--out", out).exit_code == 3  # one was set aside
        names = sorted(path.name for path in tmp_path.iterdir() if (path / "dataset.json").exists())
        assert names == ["out", "out-1-ground", "out-2-segment"]
    rows = pairs_of(out)
    assert len(rows) == 8
    assert all(np.isfinite(row["text_scores"][0]) for row in rows)
    assert all(np.isnan(row["text_scores"][0]) for row in pairs_of(tmp_path / "out-2-segment"))
    again = pairs_of(tmp_path / "out-2-segment")
    assert [row["counts"] for row in rows] == [row["counts"] for row in again]


def test_masks_get_captions(photos: Path, tmp_path: Path) -> None:
    assert annotate(photos, "--branch", "tags", "--out", tmp_path / "masks").exit_code == 3
    result = annotate("--branch", "masks", "--from", tmp_path / "masks", "--out", tmp_path / "out")
    assert result.exit_code == 3, result.output
    assert all(row["texts"][0].startswith("something") for row in pairs_of(tmp_path / "out"))
    assert "--from" in str(annotate(photos, "--branch", "masks", "--out", tmp_path / "b").exception)
    assert "Name the photographs" in str(annotate("--out", tmp_path / "b").exception)


def test_a_dry_run_writes_nothing(photos: Path, tmp_path: Path) -> None:
    result = annotate(photos, "--branch", "tags", "--out", tmp_path / "out", "--dry-run")
    assert result.exit_code == 0, result.exception
    assert not (tmp_path / "out").exists()


def test_a_tag_without_a_box_is_left_out(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = Toy.boxes

    def none_of_dark(self: Toy, image: Any, words: Any) -> Any:
        none = Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
        found = zip(boxes(self, image, words), words, strict=True)
        return [none if word == "dark" else one for one, word in found]

    monkeypatch.setattr(Toy, "boxes", none_of_dark)
    annotate(photos, "--branch", "tags", "--out", tmp_path / "out")
    assert {row["tag"] for row in pairs_of(tmp_path / "out")} == {"bright"}
    monkeypatch.setattr(Toy, "tags", lambda _, images: [[] for _ in images])
    annotate(photos, "--branch", "tags", "--out", tmp_path / "none")
    counts = Dataset.open(str(tmp_path / "none")).counts()
    assert (counts.masks, counts.empty, counts.quarantined) == (0, 4, 1)
