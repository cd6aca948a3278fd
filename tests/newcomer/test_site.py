"""The documentation's site: built strictly, without a network, and complete."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pages import ROOT
from saliency_prompt.cli.app import app
from saliency_prompt.schemas.registry import PRODUCERS
from saliency_prompt.schemas.training.registry import MODELS

pytestmark = [pytest.mark.slow]
pytest.importorskip("mkdocs")
pytest.importorskip("mkdocstrings")

# Any connection ends the build.
BUILD = """
import socket, sys
def refuse(*_): raise SystemExit("the build asked for a network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from mkdocs.__main__ import cli
cli(["build", "--strict", "--quiet", "--config-file", sys.argv[1], "--site-dir", sys.argv[2]])
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site") / "out"
    told = [sys.executable, "-c", BUILD, str(ROOT / "mkdocs.yml"), str(out)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(told, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert built.returncode == 0, built.stdout + built.stderr
    return out


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    loads = re.compile(
        r"""<(?:script|img|iframe|link rel="(?:stylesheet|preconnect)")[^>]*(?:src|href)=["']?(https?:|//)"""
    )
    for page in site.rglob("*.html"):
        assert not loads.search(page.read_text()), page


def test_every_command_field_and_name_is_in_the_reference(site: Path) -> None:
    from typer.main import get_command

    import saliency_prompt

    commands = (site / "reference/commands/index.html").read_text()
    for name, command in get_command(app).commands.items():
        for word in getattr(command, "commands", {}) or [""]:
            assert f'id="saliency-prompt-{name}{"-" * bool(word)}{word}"' in commands, (name, word)
    python = (site / "reference/python/index.html").read_text()
    for name in saliency_prompt._PLACES:
        assert f"{name}</" in python, name
    for page, configs in (
        ("labelling", [spec.config for spec in PRODUCERS.values()]),
        ("training", [spec.training for spec in MODELS.values()]),
    ):
        shown = (site / f"reference/{page}/index.html").read_text()
        for config in configs:
            for section, field in config.model_fields.items():
                for inner in leaves(field.annotation):
                    assert f"<code>{inner}</code>" in shown, (config, section, inner)


def leaves(section: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of all fields of a section."""
    for name, field in getattr(section, "model_fields", {}).items():
        inner = list(leaves(field.annotation, f"{prefix}{name}."))
        yield from inner or [f"{prefix}{name}"]


def test_notebooks_are_pages(site: Path) -> None:
    for path in (ROOT / "docs/notebooks").glob("*.ipynb"):
        page = (site / "notebooks" / path.stem / "index.html").read_text()
        assert page.count('<div class="highlight">') >= 5
