"""The page of verdicts in a real browser, two tabs of it, and pages elsewhere that want to write."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from makers import Photographed
from saliency_prompt.store.dataset import Dataset
from saliency_prompt.store.objects import open_store
from saliency_prompt.store.verdicts import IMAGE, VerdictFile, mask_key, verdicts_path

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("review")
    maker = Photographed(folder / "photos", big_ids=True)
    made = maker.dataset(open_store(str(folder / "labels")), 12, 5, source=str(folder / "photos"))
    for shard in range(made.card.n_shards):
        maker.commit(made, shard)
    made.seal()
    return made


@pytest.fixture(scope="module")
def address(dataset: Dataset) -> Iterator[str]:
    command = [sys.executable, "-c", "from saliency_prompt.cli.app import main; main()", "review", dataset.url]
    with subprocess.Popen([*command, "--port", "0"], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert line.startswith("open http"), line + process.stderr.read()
            yield line.split()[1]
        finally:
            process.terminate()


@pytest.fixture
def rows(dataset: Dataset) -> list[dict[str, Any]]:
    """Images that are no quarantined ones, in order; the file of verdicts is not there yet."""
    verdicts_path(dataset).unlink(missing_ok=True)
    images = [row for commit in dataset.commits() for row in dataset.read_images(commit).to_pylist()]
    return [row for row in images if row["status"] != "quarantined"]


@pytest.fixture
def said(dataset: Dataset) -> Callable[[int, str], tuple[Any, ...]]:
    def read(image_id: int, mask: str = IMAGE) -> tuple[Any, ...]:
        opinion = VerdictFile(verdicts_path(dataset)).of_image(image_id).get(mask)
        return (None, ()) if opinion is None else (opinion.verdict, opinion.tags)

    return read


def keys_of(dataset: Dataset, image_id: int) -> list[str]:
    masks = [row for commit in dataset.commits() for row in dataset.read_masks(commit).to_pylist()]
    return [mask_key(one["counts"], one["height"], one["width"]) for one in masks if one["image_id"] == image_id]


def test_keys_say_what_holds(visit: Any, address: str, dataset: Dataset, rows: list[dict[str, Any]], said: Any) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    page = visit(address)
    place, chosen, progress = (
        page.locator("#place"),
        page.locator("#items [aria-selected=true]"),
        page.locator("#progress"),
    )
    expect(place).to_contain_text(f"1 of {len(rows)}: {rows[0]['file_name']}")
    masks = keys_of(dataset, rows[0]["image_id"])
    expect(page.locator("#picture .mask")).to_have_count(len(masks))
    assert page.locator("#picture image").evaluate("one => one.getBBox().width") == rows[0]["width"]

    page.keyboard.press("1")
    expect(chosen).to_contain_text("1  mask")
    page.keyboard.press("r")
    expect(chosen.locator(".reject")).to_be_visible()
    assert said(rows[0]["image_id"], masks[0]) == ("reject", ())
    expect(page.locator(f"#picture .mask[data-key='{masks[0]}']")).to_have_class("mask chosen reject")

    page.keyboard.press("t")
    page.keyboard.type("shadow, <b>two words</b>, shadow")
    page.keyboard.press("Enter")
    expect(chosen.locator(".tag")).to_have_text("shadow, <b>two words</b>")
    assert said(rows[0]["image_id"], masks[0]) == ("reject", ("shadow", "<b>two words</b>"))

    page.keyboard.press("Space")  # the image, and on
    expect(place).to_contain_text(f"2 of {len(rows)}")
    assert said(rows[0]["image_id"]) == ("accept", ())
    page.keyboard.press("x")
    expect(place).to_contain_text(f"3 of {len(rows)}")
    assert said(rows[1]["image_id"]) == ("reject", ())
    expect(progress).to_contain_text("1 accepted, 1 rejected; masks: 0 accepted, 1 rejected")

    page.keyboard.press("z")  # back at the second image, of which nothing is said
    expect(place).to_contain_text(f"2 of {len(rows)}")
    expect(progress).to_contain_text("1 accepted, 0 rejected")
    assert said(rows[1]["image_id"]) == (None, ())
    page.keyboard.press("z")
    expect(progress).to_contain_text("0 accepted, 0 rejected")
    assert said(rows[0]["image_id"]) == (None, ())

    page.locator("#show").select_option("tagged")
    expect(place).to_contain_text(f"1 of {len(rows)}")
    page.locator("#show").blur()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#error")).to_contain_text("no further image")
    page.reload()
    expect(place).to_contain_text(f"1 of {len(rows)}")  # its address says which
    expect(page.locator("#items .reject")).to_have_count(1)


def test_keys_pressed_in_haste_are_not_lost(visit: Any, address: str, rows: list[dict[str, Any]], said: Any) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    page = visit(address)
    expect(page.locator("#place")).to_contain_text("1 of")
    for _ in range(len(rows) - 1):
        page.keyboard.press("Space")
    expect(page.locator("#place")).to_contain_text(f"{len(rows)} of {len(rows)}")
    assert [said(row["image_id"])[0] for row in rows] == ["accept"] * (len(rows) - 1) + [None]


def test_two_tabs_do_not_undo_each_other(visit: Any, address: str, rows: list[dict[str, Any]], said: Any) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    first, second = visit(address), visit(address)  # of two browsers: neither hears of the other
    for page in (first, second):
        expect(page.locator("#place")).to_contain_text("1 of")
    first.keyboard.press("a")
    expect(first.locator("#stage")).to_have_class("accept")
    failed: list[str] = []
    second.on("response", lambda answer: failed.append(answer.url) if answer.status == 409 else None)
    second.evaluate("document.body.focus()")
    status = second.evaluate(
        """async () => (await fetch('say', {method: 'POST', headers: {'Content-Type': 'application/json'},
        body: JSON.stringify({place: 0, id: image.id, mask: '', verdict: 'accept', tags: ['late'], seen: 1})
        })).status"""
    )
    assert status == 200  # it had seen what holds
    tab = first.context.new_page()
    tab.goto(address + f"#/image/{rows[0]['image_id']}")
    expect(tab.locator("#stage")).to_have_class("accept")
    expect(tab.locator("#items .tag")).to_have_text("late")
    tab.keyboard.press("c")
    expect(tab.locator("#stage")).to_have_class("")
    expect(first.locator("#stage")).to_have_class("")  # tabs of one browser tell each other
    assert said(rows[0]["image_id"]) == (None, ("late",))


def send(address: str, content: Any, **headers: str) -> tuple[int, Any]:
    """Status and answer of what is written without a browser."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    named = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(address + "say", body, named)
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_only_the_page_itself_writes(address: str, dataset: Dataset, rows: list[dict[str, Any]]) -> None:
    good = {"place": 0, "id": str(rows[0]["image_id"]), "mask": "", "verdict": "accept", "tags": [], "seen": 0}
    port = address.rsplit(":", 1)[1].strip("/")
    for refused in (
        {"Origin": "http://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": f"http://localhost:{port}"},  # another origin than 127.0.0.1
        {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ):
        assert send(address, good, **refused)[0] == 403, refused
    assert send(address, good, Host="elsewhere.example")[0] == 400
    assert send(address, good, Content_Type="text/plain")[0] == 415
    assert send(address, b" " * 70_000)[0] == 413
    for wrong in (
        {"id": "7"},
        {"mask": "f" * 16},
        {"verdict": "perhaps"},
        {"place": 99},
        {"tags": ["x" * 99]},
        {"x": 1},
    ):
        status, answer = send(address, good | wrong)
        assert status == 400, wrong
        assert len(answer["error"]) > 10
    assert send(address, b"{")[0] == 400
    assert not verdicts_path(dataset).exists()
    assert send(address, good, Origin=f"http://127.0.0.1:{port}")[0] == 200
    assert send(address, good)[0] == 409  # it has not seen the newest
