"""The explorer in a real browser, and its server."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from corpus import encode, scene
from saliency_prompt.pipeline.explore.explorer import Explorer
from saliency_prompt.pipeline.explore.server import serve
from saliency_prompt.pipeline.plan import resolve_config
from saliency_prompt.pipeline.sources import open_source
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.load import load_config
from saliency_prompt.stages.producers.saliency.producer import load_saliency

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explore") / "scene.jpg"
    path.write_bytes(encode(scene(5, 480, 640, objects=4)[0]))
    return path


@pytest.fixture(scope="module")
def address(photo: Path) -> Iterator[str]:
    command = [sys.executable, "-c", "from saliency_prompt.cli.app import main; main()", "explore", str(photo)]
    with running([*command, "--weights", "lab-color", "--port", "0"]) as url:
        yield url


@contextmanager
def running(command: list[str]) -> Iterator[str]:
    """The address of an explorer that ends with the block."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert line.startswith("open http"), line + process.stderr.read()
            yield line.split()[1]
        finally:
            process.terminate()


def answer(address: str, path: str) -> Any:
    with urllib.request.urlopen(address + path) as response:
        return json.loads(response.read())


def test_the_pointer_is_answered(visit: Callable[..., Any], address: str) -> None:
    page = visit(address, viewport={"width": 1500, "height": 600})  # the picture has margins at its sides
    page.wait_for_selector("#seed[data-seed]")
    expect = pytest.importorskip("playwright.sync_api").expect
    box = page.locator("#picture image").first.bounding_box()
    seconds = []
    for i in range(12):
        before = page.locator("#seed").get_attribute("data-seed")
        x, y = box["x"] + box["width"] * (0.15 + 0.06 * i), box["y"] + box["height"] * 0.52
        with page.expect_response(lambda response: "/seed" in response.url) as asked:
            page.mouse.move(x, y)
        seconds.append(asked.value.request.timing["responseEnd"] / 1e3)
        expect(page.locator("#seed")).not_to_have_attribute("data-seed", before)
        cell = page.locator(".cell").bounding_box()
        assert cell["x"] - 1 <= x <= cell["x"] + cell["width"] + 1
        assert cell["y"] - 1 <= y <= cell["y"] + cell["height"] + 1
    assert sorted(seconds)[len(seconds) // 2] < 0.2
    assert page.locator("path.survivor").count() > 0
    assert page.locator("#map").get_attribute("href").startswith("data:image/png")


def test_sliders_change_what_is_seen_and_the_command(visit: Callable[..., Any], address: str) -> None:
    page = visit(address, bypass_csp=True)  # of the waiting below, which evaluates text
    page.wait_for_selector("#seed[data-seed]")
    assert "threshold.tau" not in page.locator("#command").inner_text()
    survivors = page.locator("path.survivor").evaluate_all("paths => paths.map(p => p.getAttribute('d')).join()")
    page.locator("#tau").fill("0.8")
    page.locator("#tau").dispatch_event("change")
    page.wait_for_function("document.getElementById('command').textContent.includes('--set threshold.tau=0.8')")
    assert survivors != page.locator("path.survivor").evaluate_all(
        "paths => paths.map(p => p.getAttribute('d')).join()"
    )
    page.locator("#short").fill("480")
    page.locator("#short").dispatch_event("change")
    page.wait_for_function("document.getElementById('command').textContent.includes('--set decode.short_side=480')")
    page.locator("#with-map").click()
    assert page.locator("#map").evaluate("map => map.style.display") == "none"
    page.locator("#stage").focus()
    before = page.locator("#seed").get_attribute("data-seed")
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"document.getElementById('seed').dataset.seed !== '{before}'")


def test_survivors_are_what_the_main_job_stores(address: str, photo: Path) -> None:
    config = load_config(overrides=["features.weights=lab-color"])
    loaded = load_saliency(config)
    cpu = torch.device("cpu")
    explorer = Explorer(list(open_source(str(photo)).refs()), resolve_config(config, loaded.facts, cpu), loaded, cpu)
    analysis = explorer.analyse(0, explorer.config)
    masks = analysis.survivors.masks
    assert masks is not None
    told = answer(address, "state")["survivors"]
    assert [one["maskness"] for one in told] == pytest.approx(masks.extra["score_raw"].tolist(), abs=2e-4)
    assert [one["score"] for one in told] == pytest.approx(masks.score.tolist(), abs=2e-4)


def test_every_fate_is_explained(address: str) -> None:
    kinds = set()
    for i in range(14):
        for j in range(14):
            kinds.add(answer(address, f"seed?x={i / 14}&y={j / 14}&scale={(i + j) % 3}")["fate"]["kind"])
    assert {"survivor", "swallowed"} <= kinds <= {"survivor", "swallowed", "filtered", "low", "no mask"}


@pytest.mark.parametrize("path", ["state?tau=7", "state?tau=x", "state?image=9", "seed?x=1", "photograph/9.jpg"])
def test_bad_questions_get_a_sentence(address: str, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        answer(address, path)
    with caught.value as response:
        assert response.code == 400
        assert len(json.loads(response.read())["error"]) > 10


def test_pages_elsewhere_cannot_ask(address: str) -> None:
    request = urllib.request.Request(address + "about", headers={"Host": "elsewhere.example"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    with caught.value as response:
        assert response.code == 400


def test_a_port_in_use_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="give another --port"):
            serve(None, "", "127.0.0.1", taken.getsockname()[1], print)  # type: ignore[arg-type]


def test_it_ends_on_a_signal(photo: Path) -> None:
    command = [sys.executable, "-c", "from saliency_prompt.cli.app import main; main()", "explore", str(photo)]
    command += ["--weights", "lab-color", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()
        start = time.monotonic()
        process.terminate()
        process.wait(20)
        assert time.monotonic() - start < 20


def test_a_data_set_is_explored_as_it_was_made(photo: Path, tmp_path: Path) -> None:
    program = [sys.executable, "-c", "from saliency_prompt.cli.app import main; main()"]
    sizes = ["--set", "decode.short_side=320", "--set", "threshold.tau=0.6"]
    job = ["generate", str(photo), "--out", str(tmp_path / "data"), "--weights", "lab-color", *sizes]
    subprocess.run([*program, *job], check=True, capture_output=True)
    command = [*program, "explore", str(tmp_path / "data"), "--port", "0"]
    with running(command) as address:
        about, state = answer(address, "about"), answer(address, "state")
    assert about["images"] == [photo.name]
    assert (about["tau"], about["short"]) == (0.6, 320)
    from saliency_prompt.store.dataset import Dataset

    dataset = Dataset.open(str(tmp_path / "data"))
    masks = dataset.read_masks(next(iter(dataset.commits())))
    assert [one["score"] for one in state["survivors"]] == pytest.approx(masks["score"].to_pylist(), abs=2e-4)
