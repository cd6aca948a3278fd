"""The commands of README and how-tos run as they are written, in a folder that holds what they name."""

import shutil
import tomllib
import traceback
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from pages import ROOT, Block, read_blocks
from saliency_prompt.cli.app import app

HOW_TOS = sorted(f"docs/how-to/{path.name}" for path in (ROOT / "docs/how-to").glob("*.md"))
OTHERS = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
# What a page names and does not make, by what it is in the world: under `name` or as `name=what it is`.
WORLD = {
    "README.md": "PHOTOS PHOTO photo.jpg BACKBONE=backbone.safetensors cluster.yaml",
    "docs/how-to/export-and-import.md": "PHOTOS DATASET instances.json results.json W=backbone.safetensors",
    "docs/how-to/import-a-checkpoint.md": "PHOTOS CHECKPOINT instances.json",
    "docs/how-to/look-and-check.md": "PHOTOS DATASET OTHER gt.json",
    "docs/how-to/own-photographs.md": "PHOTOS FILE=backbone.safetensors",
    "docs/how-to/review-and-score.md": "PHOTOS DATASET DATASET.verdicts.jsonl W=backbone.safetensors clip.mp4 VIDEOS "
    "FRAMES=PHOTOS RUN list.txt gt.json",
    "docs/how-to/train-a-backbone.md": "PHOTOS PHOTO",
    "docs/how-to/train-with-labels.md": "PHOTOS DIR=PHOTOS photos=PHOTOS PHOTO photo.jpg DATASET instances.json "
    "val.json boxes.json panoptic.json panoptic MATTES VOC BACKBONE=backbone.safetensors backbone.safetensors",
}
# Words that make a command small which says large things; they are typed after its own.
SMALLER = {"densecl PHOTOS --arch resnet50": "--arch resnet18 --epochs 1 --batch-size 4"}
REASONS = {"needs Docker", "needs a bucket and a Ray cluster with GPUs", "needs a Ray cluster with GPUs"}
MOST_NOT_RUN = 3


@pytest.fixture
def place(page: str, world: Path, small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of someone who reads a page."""
    for entry in WORLD[page].split():
        name, _, what = entry.partition("=")
        source = min((world / "PHOTOS").iterdir()) if name in {"PHOTO", "photo.jpg"} else world / (what or name)
        copy = shutil.copytree if source.is_dir() else shutil.copyfile
        copy(source, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for page_server in ("explore", "review"):
        monkeypatch.setattr(f"saliency_prompt.pipeline.{page_server}.server.serve_page", _answer_once)
    return tmp_path


def _answer_once(make_app: Any, host: str, port: int, started: Any) -> None:
    """In place of a server that runs until it is stopped: the page is made, and asked for."""
    from starlette.testclient import TestClient

    assert TestClient(make_app(), base_url=f"http://{host}:{port}").get("/").status_code == 200
    started(f"http://{host}:{port}/")


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", *HOW_TOS])
def test_commands_run_as_written(page: str, place: Path) -> None:
    for block in read_blocks(page):
        if block.reason is not None:
            continue
        if block.language == "python":
            exec(compile("\n" * block.line + "\n".join(block.lines), page, "exec"), {})  # noqa: S102
        for words in block.commands() if block.language == "" else []:
            _run(words, block)


def _run(words: list[str], block: Block) -> None:
    program, *arguments = words
    if program != "saliency-prompt":
        return  # see test_other_programs
    extra = next((more for start, more in SMALLER.items() if " ".join(arguments).startswith(start)), "")
    result = CliRunner().invoke(app, [*arguments, *extra.split()])
    if result.exit_code != 0:
        trace = "".join(traceback.format_exception(result.exception)) if result.exception else ""
        pytest.fail(f"{block.place}: {' '.join(words)}\n{result.output}\n{trace}")


@pytest.mark.parametrize("page", ["README.md", *HOW_TOS])
def test_other_programs(page: str) -> None:
    """Of pip and make, only that what they are told to take exists."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for block in read_blocks(page):
        for words in block.commands() if block.language == "" else []:
            match words:
                case ["saliency-prompt", *_]:
                    pass
                case ["pip", "install", *options, what]:
                    extras = what.partition("[")[2].removesuffix("]")
                    assert set(filter(None, extras.split(","))) <= set(project["optional-dependencies"])
                    assert options in ([], ["--constraint", "constraints.txt"])
                case ["make", target]:
                    assert f"\n{target}:" in (ROOT / "Makefile").read_text()
                case ["docker", *_] if block.reason is not None:
                    assert all((ROOT / word).exists() for word in words if word.startswith("docker/"))
                case _:
                    pytest.fail(f"{block.place}: {words[0]} is not known here")


@pytest.mark.parametrize("page", ["README.md", *HOW_TOS, *OTHERS])
def test_commands_have_the_options_that_are_written(page: str) -> None:
    """Also of pages and blocks that are not run."""
    for block in read_blocks(page):
        for words in block.commands() if block.language == "" and "saliency-prompt" in "".join(block.lines) else []:
            if Path(words[0]).name == "saliency-prompt":
                _parse(words[1:], block)


def _parse(words: list[str], block: Block) -> None:
    command: Any = get_command(app)
    kind = type(command.make_context("saliency-prompt", [], resilient_parsing=True))
    while hasattr(command, "commands"):
        if words[0] not in command.commands and "train" in command.commands:
            words = ["train", *words]  # of densecl
        assert words[0] in command.commands, f"{block.place}: there is no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    try:
        command.make_parser(kind(command)).parse_args(list(words))
    except Exception as error:
        pytest.fail(f"{block.place}: {command.name}: {error}")


def test_hardly_anything_is_not_run_and_every_reason_is_known() -> None:
    reasons = [block.reason for page in ("README.md", *HOW_TOS) for block in read_blocks(page) if block.reason]
    assert len(reasons) <= MOST_NOT_RUN
    assert set(reasons) <= REASONS


def test_every_how_to_is_read() -> None:
    assert sorted(WORLD) == sorted(["README.md", *HOW_TOS])
