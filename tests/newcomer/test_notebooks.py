"""The notebooks run from the first cell to the last, on small photographs and for few steps."""

import os
import sys
from pathlib import Path

import pytest

from corpus import write_scenes
from pages import ROOT

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

FOLDER = ROOT / "docs/notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))
SMALL = {
    "photographs_to_detector.ipynb": "EPOCHS = 1",
    "what_a_seed_sees.ipynb": "PHOTO, SHORT_SIDE = 'photos/scene_001.png', 160",
}
MOST_BYTES = 400_000  # with the pictures it is stored with


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_scenes(tmp_path / "photos", 4)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(FOLDER / name, 4)
    place = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(SMALL[name]))
    nbclient.NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    errors = [line for line in said.splitlines() if "error: " in line]  # of commands behind !, which fail no cell
    assert not [line for line in errors if "has no image with masks" not in line]  # so few steps may find nothing


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_small_and_whole(name: str) -> None:
    notebook = nbformat.read(FOLDER / name, 4)
    nbformat.validate(notebook)
    assert (FOLDER / name).stat().st_size < MOST_BYTES
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(output.output_type != "error" for cell in code for output in cell.outputs)
    assert not any(str(ROOT) in str(cell) or "/tmp/" in str(cell) for cell in code)  # noqa: S108


def test_every_notebook_is_known() -> None:
    assert set(NOTEBOOKS) == set(SMALL)
