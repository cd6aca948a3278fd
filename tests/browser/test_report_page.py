"""The report in a real browser, from disk."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from corpus import write_photos
from saliency_prompt.pipeline.export.coco import export_coco
from saliency_prompt.pipeline.generate import Job, generate
from saliency_prompt.pipeline.progress import Display
from saliency_prompt.pipeline.report.page import write_report
from saliency_prompt.pipeline.sources import open_source
from saliency_prompt.schemas.load import load_config
from saliency_prompt.store.dataset import Dataset

CPU = torch.device("cpu")
pytestmark = pytest.mark.slow
HOSTILE = "<img src=x onerror=alert(1)> & 'quotes\".jpg"
SMALL = ["features.weights=lab-color", "decode.short_side=96", "decode.long_side=192", "plan.shard_size=8"]


def make(photos: Path, out: Path, *overrides: str) -> Dataset:
    from rich.console import Console

    job = Job(str(out), load_config(overrides=[*SMALL, *overrides]), CPU)
    with Display(Console(quiet=True)) as display:
        return generate(open_source(str(photos)), job, display, threading.Event())[0]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`single`, `compared` and `truth`, of 40 scenes, an empty one, a broken one and one with a hostile name."""
    base = tmp_path_factory.mktemp("reports")
    photos = base / "photos"
    write_photos(photos, 40)
    shutil.copy(photos / "photo_0000.jpg", photos / HOSTILE)
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    first = make(photos, base / "first", "encode.saliency=true")
    second = make(photos, base / "second", "threshold.tau=0.7")
    export_coco(second, str(base / "gt.json"))
    write_report(first, str(base / "single"))
    write_report(first, str(base / "compared"), other=second, gt=base / "gt.json")
    return base


Visit = Callable[..., Any]


def cards(page: Any) -> int:
    return page.locator("#grid li").count()


def test_it_opens_from_disk_and_draws(visit: Visit, reports: Path) -> None:
    page = visit(reports / "single/index.html")
    page.wait_for_selector("#grid svg path.mask")
    assert cards(page) == 24
    assert page.locator("figure svg").count() >= 9
    assert page.locator("#found").inner_text() == "42 of 42 images"
    page.locator("#next").click()
    page.wait_for_function("document.querySelectorAll('#grid li').length === 18")


def test_filters_filter_and_sorts_sort(visit: Visit, reports: Path) -> None:
    page = visit(reports / "single/index.html")
    page.fill("#search", "photo_001")
    assert cards(page) == 10
    page.fill("#search", "onerror")
    assert cards(page) == 1
    assert page.locator("#grid .name").inner_text() == HOSTILE
    page.fill("#search", "")
    page.select_option("#status", "quarantined")
    assert page.locator("#grid .name").all_inner_texts() == ["broken.jpg"]
    page.select_option("#status", "")
    page.fill("#least", "1000")
    assert cards(page) == 0
    page.fill("#least", "0")
    page.select_option("#sort", "n")
    counts = [int(text.split(" mask")[0].split("\n")[-1]) for text in page.locator("#grid .text").all_inner_texts()]
    assert counts == sorted(counts, reverse=True)


def test_layers_toggle(visit: Visit, reports: Path) -> None:
    page = visit(reports / "single/index.html")
    page.wait_for_selector("#grid svg path.mask")
    for layer, part in (
        ("masks", "path.mask"),
        ("boxes", "rect.box"),
        ("seeds", "circle.seed"),
        ("soft", "image.soft"),
    ):
        box = page.locator(f"[data-layer={layer}]")
        before = page.locator(f"#grid svg {part}").count() > 0
        assert before == box.is_checked()
        box.click()
        page.wait_for_function(
            f"(document.querySelectorAll('#grid svg {part}').length > 0) === {str(not before).lower()}"
        )


def test_every_image_has_an_address_and_keys_move(visit: Visit, reports: Path) -> None:
    page = visit(reports / "single/index.html")
    page.wait_for_selector("#grid svg path.mask")
    page.locator("#grid a").first.click()
    page.wait_for_selector("dialog[open] #stage svg path.mask")
    first = page.locator("#view-title").inner_text()
    address = page.url
    rows = page.locator("#masks tbody tr")
    assert rows.count() == page.locator("#stage path.mask").count() > 0
    rows.first.hover()
    assert page.locator("#stage .faint").count() == rows.count() - 1
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"document.getElementById('view-title').textContent !== {first!r}")
    page.keyboard.press("m")
    page.wait_for_function("document.querySelectorAll('#stage path.mask').length === 0")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog[open]", state="detached")

    again = visit(address)
    again.wait_for_selector("dialog[open]")
    assert again.locator("#view-title").inner_text() == first


def test_compare_aligns_the_same_photograph(visit: Visit, reports: Path) -> None:
    page = visit(reports / "compared/index.html")
    page.select_option("#sort", "changed")
    page.wait_for_selector("#grid svg")
    for card in page.locator("#grid li").all()[:6]:
        sources = [image.get_attribute("href") for image in card.locator("svg > image").all()]
        assert len(sources) == 2
        assert sources[0] == sources[1]
        boxes = [svg.bounding_box() for svg in card.locator(".frame").all()]
        assert boxes[0]["y"] == boxes[1]["y"]
        assert boxes[0]["height"] == boxes[1]["height"]
    changes = [float(text.split("change ")[1].split(" ")[0]) for text in page.locator("#grid .text").all_inner_texts()]
    assert changes == sorted(changes, reverse=True)
    assert changes[0] > 0
    assert page.locator("path.truth").count() > 0


def test_phone_and_dark(visit: Visit, reports: Path) -> None:
    page = visit(reports / "single/index.html", viewport={"width": 380, "height": 780}, color_scheme="dark")
    page.wait_for_selector("#grid svg path.mask")
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    paper, ink = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    assert contrast(paper, ink) > 7


def test_it_can_be_used_without_a_pointer(visit: Visit, reports: Path) -> None:
    page = visit(reports / "single/index.html")
    page.wait_for_selector("#grid svg path.mask")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the images"
    bare = page.evaluate(
        "[...document.querySelectorAll('svg[role=img], div[role=img], input, select, button')]"
        ".filter(e => !e.getAttribute('aria-label') && !e.labels?.length && !e.textContent.trim()).length"
    )
    assert bare == 0


def contrast(first: str, second: str) -> float:
    """WCAG contrast of two CSS colours."""

    def luminance(color: str) -> float:
        values = [int(v) / 255 for v in color[color.index("(") + 1 : -1].split(",")[:3]]
        linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_texts_stand_beside_masks_and_are_found(visit: Visit, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from saliency_prompt.schemas.registry import load_label_config
    from tiny_models import tiny_roles
    from word_scenes import write_word_scenes

    gt = write_word_scenes(tmp_path, 0, 6)
    given = [f"boxes.gt={str(gt)!r}", "annotate.branch=boxes", "roles.captioner=''"]
    job = Job(str(tmp_path / "pairs"), load_label_config("annotate", overrides=[*tiny_roles(), *given]), CPU)
    from rich.console import Console

    with Display(Console(quiet=True)) as display:
        dataset, _ = generate(open_source(str(tmp_path / "images")), job, display, threading.Event())
    said = [row["texts"][0] for commit in dataset.commits() for row in dataset.read_masks(commit).to_pylist()]
    write_report(dataset, str(tmp_path / "report"))
    page = visit(tmp_path / "report/index.html")
    page.wait_for_selector("#grid svg path.mask")
    whole = cards(page)
    text = min(said, key=said.count)
    page.fill("#search", text.upper())
    assert 0 < cards(page) <= whole
    assert text in page.locator("#grid .said").first.inner_text()
    page.fill("#search", "no such thing")
    assert cards(page) == 0
    page.fill("#search", text)
    page.locator("#grid li a").first.click()
    page.wait_for_selector("#masks tbody td.said")
    assert text in " ".join(page.locator("#masks tbody td.said").all_inner_texts())
    assert page.locator("#masks th.said").is_visible()
