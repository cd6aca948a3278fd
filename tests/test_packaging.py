"""The wheel holds every module of every floor, and nothing else."""

import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
FLOORS = ("schemas", "models", "store", "stages", "pipeline", "cluster", "cli")


@pytest.mark.slow
def test_every_module_is_in_the_wheel_and_imports(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    copy = tmp_path / "source"
    listed = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True)
    for name in listed.splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(copy)], check=True)
    wheel = next(tmp_path.glob("*.whl"))
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    parts = [path for floor in FLOORS for path in (ROOT / floor).rglob("*.*") if "__pycache__" not in path.parts]
    wanted = {
        f"saliency_prompt/{path.relative_to(ROOT).as_posix()}"
        for path in [ROOT / "__init__.py", ROOT / "__main__.py", ROOT / "version.py", *parts]
    }
    assert held == wanted

    modules = sorted(
        n.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for n in wanted if n.endswith(".py")
    )
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True)
    program = f"import sys, importlib; sys.path.insert(0, {str(site)!r})\n"
    program += (
        f"for name in {modules!r}:\n    assert importlib.import_module(name).__file__.startswith({str(site)!r}), name"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_version_is_said_once() -> None:
    from importlib.metadata import version

    import saliency_prompt

    assert version("saliency-prompt") == saliency_prompt.__version__


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    named = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in named}


def requirements() -> Iterator[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for group in (project["dependencies"], *project["optional-dependencies"].values()):
        yield from map(Requirement, group)


def test_every_requirement_is_pinned_within_its_range() -> None:
    pinned = pins()
    wanted = [one for one in requirements() if one.name != "saliency-prompt"]
    missing = [one.name for one in wanted if canonicalize_name(one.name) not in pinned]
    assert not missing, "`make lock` pins them in constraints.txt"
    outside = [str(one) for one in wanted if pinned[canonicalize_name(one.name)] not in one.specifier]
    assert not outside, "`make lock` pins them anew in constraints.txt"


def test_extras_name_extras_that_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {extra for one in requirements() if one.name == "saliency-prompt" for extra in one.extras}
    assert named <= set(project["optional-dependencies"])


def test_the_citation_has_the_version() -> None:
    import yaml

    import saliency_prompt

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == saliency_prompt.__version__
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
