"""What the explorer's page calls "Reproduce" reproduces."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from corpus import write_photos
from saliency_prompt.cli.app import app
from saliency_prompt.pipeline.explore.explorer import describe_overrides
from saliency_prompt.schemas.labels.saliency import PRESETS
from saliency_prompt.schemas.load import load_config
from saliency_prompt.store.dataset import Dataset

ODD = ["saliency.scales=[1.0, 0.3]", "filters.min_score=null", "decode.keep_ratio=false", "threshold.tau=0.123456789"]


@pytest.mark.parametrize("preset", PRESETS)
def test_overrides_lead_from_one_configuration_to_another(preset: str) -> None:
    wanted = load_config(preset, overrides=ODD)
    for start in PRESETS:
        found = describe_overrides(load_config(start), wanted)
        assert load_config(start, overrides=found) == wanted
    assert describe_overrides(wanted, wanted) == []


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands of pages that would have been served."""
    commands: list[str] = []

    def serve(_explorer: Any, command: str, *_: Any) -> None:
        commands.append(command)

    monkeypatch.setattr("saliency_prompt.pipeline.explore.server.serve", serve)
    return commands


def run(*words: object) -> None:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output


def test_of_a_data_set_and_of_photographs(tmp_path: Path, told: list[str]) -> None:
    photos = tmp_path / "my photos"
    photos.mkdir()
    write_photos(photos, 3)
    (tmp_path / "mine.yaml").write_text("nms: {max_masks: 4}\n")
    settings = ["--preset", "uplvp", "--config", tmp_path / "mine.yaml", "--weights", "lab-color"]
    settings += ["--set", "decode.short_side=160", "--set", "decode.long_side=160", "--set", "filters.min_score=null"]
    run("generate", photos, "--out", tmp_path / "data", *settings)
    run("explore", tmp_path / "data")
    run("explore", photos, *settings)
    wanted = Dataset.open(str(tmp_path / "data")).sealed
    assert wanted is not None
    for number, (command, name) in enumerate(zip(told, ("OTHER", "DATASET"), strict=True)):
        program, *words = shlex.split(command)
        assert program == "saliency-prompt"
        out = tmp_path / str(number)
        run(*[str(out) if word == name else word for word in words])
        made = Dataset.open(str(out)).sealed
        assert made is not None
        assert made.counts == wanted.counts
        assert made.root_hash == wanted.root_hash
