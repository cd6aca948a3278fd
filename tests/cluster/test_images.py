"""The Dockerfiles: rendered as they are stored, and naming nothing that is not there."""

import re
import tomllib
from pathlib import Path

import pytest

from saliency_prompt.cluster.manifests.docker import IMAGES, dockerfile, render_images

ROOT = Path(__file__).parents[2]
INSTRUCTIONS = {"ARG", "COPY", "ENTRYPOINT", "ENV", "FROM", "RUN", "USER", "WORKDIR"}


def instructions(text: str) -> list[str]:
    """Whole instructions, without comments."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_what_is_stored_is_what_is_rendered() -> None:
    rendered = render_images()
    assert set(IMAGES) < set(rendered)
    for name, text in rendered.items():
        assert (ROOT / name).read_text() == text, f"{name}: write it anew with render_images()"


@pytest.mark.parametrize("file", IMAGES)
def test_it_names_files_and_extras_that_exist(file: str) -> None:
    found = instructions(render_images()[file])
    assert {line.split()[0] for line in found} <= INSTRUCTIONS
    assert found[0].startswith("FROM ")
    for line in found:
        if line.startswith("COPY "):
            assert all((ROOT / source).exists() for source in line.split()[1:-1]), line
        for constraint in re.findall(r"--constraint /src/(\S+)", line):
            assert (ROOT / constraint).is_file()
    extras = re.search(r"/src\[([\w,]+)\]", "\n".join(found))
    assert extras is not None
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras[1].split(",")) <= set(known)


def test_python_is_the_one_that_versions_are_pinned_for() -> None:
    text = dockerfile("gpu", "Dockerfile", "a:1", ["cluster"])
    wanted = re.search(r"FROM python:(\d+\.\d+)-", text)
    assert wanted is not None
    assert f"Python {wanted[1]} " in (ROOT / "constraints.txt").read_text().splitlines()[0]


def test_cpu_and_gpu_differ_in_torch_alone() -> None:
    cpu, gpu = (instructions(dockerfile(kind, "Dockerfile", "a:1", ["train"])) for kind in ("cpu", "gpu"))
    assert "NVIDIA_VISIBLE_DEVICES=all" in "\n".join(gpu)
    assert "NVIDIA" not in "\n".join(cpu)
    differing = set(cpu) ^ set(gpu)
    assert all(line.startswith(("ARG", "ENV")) or line.endswith("torch torchvision") for line in differing)
