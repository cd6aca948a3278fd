"""Names that break programs: each costs itself at most, and those of real photographs cost nothing."""

import json
import os
import unicodedata
from pathlib import Path

import pytest

from saliency_prompt.pipeline.sources import open_source
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.records import ImageRef
from saliency_prompt.stages.read import BadImage, read_image_bytes
from saliency_prompt.store.inputs import InputsReader, write_inputs
from saliency_prompt.store.objects import open_store

COMPOSED = unicodedata.normalize("NFC", "café.jpg")
DECOMPOSED = unicodedata.normalize("NFD", "café.jpg")


def planned(source: str, out: Path, root: str | None = None) -> list[ImageRef]:
    """What a plan holds of a source, after a round through its files."""
    store = open_store(str(out))
    summary = write_inputs(store, open_source(source, root).refs(), 100)
    return InputsReader(store, summary.plan, summary.n_images, 100).read(0)


def outcome(ref: ImageRef) -> bytes | str:
    try:
        return read_image_bytes(ref, 10**6)
    except BadImage as bad:
        return bad.reason


def test_a_link_to_itself_costs_itself(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "good.jpg").write_bytes(b"good")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "ring.jpg").symlink_to("rang.jpg")
    (folder / "rang.jpg").symlink_to("ring.jpg")
    (folder / "nothing").symlink_to("nothing")
    refs = planned(str(folder), tmp_path / "out")
    assert {ref.file_name: outcome(ref) for ref in refs} == {
        "good.jpg": b"good",
        "loop.jpg": "unreadable",
        "rang.jpg": "unreadable",
        "ring.jpg": "unreadable",
    }
    with pytest.raises(UserError):
        open_source(str(folder / "nothing"))


def test_names_that_are_not_utf8_are_found_again(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    names = [b"caf\xe9.jpg", b"caf\\udce9.jpg", b"caf.jpg", b"\xff\xfe/a\x80.jpg"]
    try:
        for name in names:
            path = Path(os.fsdecode(os.fsencode(folder) + b"/" + name))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    expected = {
        r"caf\udce9.jpg": names[0],
        r"caf\udc5cudce9.jpg": names[1],
        "caf.jpg": names[2],
        r"\udcff\udcfe/a\udc80.jpg": names[3],
    }
    walked = planned(str(folder), tmp_path / "walked")
    assert {ref.file_name: outcome(ref) for ref in walked} == expected
    # A list may name them in the stored form, and so may a json, within its root.
    listing = folder / "list.txt"
    listing.write_text("\n".join(expected))
    coco = tmp_path / "list.json"
    coco.write_text(json.dumps({"images": [{"file_name": name} for name in expected]}))
    for listed in (planned(str(listing), tmp_path / "a"), planned(str(coco), tmp_path / "b", str(folder))):
        assert {ref.file_name: outcome(ref) for ref in listed} == expected
        assert {ref.image_id for ref in listed} == {ref.image_id for ref in walked}


def test_a_folder_whose_own_name_is_not_utf8(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/f\xe9"))
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (folder / "a.jpg").write_bytes(b"a")
    source = open_source(str(folder))
    assert source.description.encode() == str(tmp_path.resolve()).encode() + rb"/f\udce9"
    for photos in (str(folder), source.description, str(folder / "a.jpg"), str(folder / "*")):
        assert [outcome(ref) for ref in planned(photos, tmp_path / "out")] == [b"a"]
    (folder / "list.txt").write_text("a.jpg\n")
    assert [outcome(ref) for ref in planned(str(folder / "list.txt"), tmp_path / "out")] == [b"a"]


def test_an_escape_in_a_json_does_not_lead_out(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    try:
        Path(os.fsdecode(os.fsencode(root) + b"/out\xe9")).symlink_to(tmp_path)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    coco = tmp_path / "list.json"
    coco.write_text(json.dumps({"images": [{"file_name": r"out\udce9/secret.jpg"}]}))
    assert [outcome(ref) for ref in planned(str(coco), tmp_path / "out", str(root))] == ["path_escape"]


@pytest.mark.parametrize("place", ["", "é/", "deep/down/"])
def test_both_unicode_forms_of_a_name_are_labelled(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "photos"
    for name in (f"{place}{COMPOSED}", f"{place}{DECOMPOSED}", "other.jpg"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    if len(list((folder / place).glob("caf*"))) < 2:
        pytest.skip("this file system keeps one of the two")
    refs = planned(str(folder), tmp_path / "out")
    assert sorted(outcome(ref) for ref in refs) == sorted(ref.file_name.encode() for ref in refs)
    ids = {ref.file_name: ref.image_id for ref in refs}
    assert len(set(ids.values())) == 3
    # Each alone has the id of the form, as has the first of both.
    (folder / place / COMPOSED).unlink()
    alone = {ref.file_name: ref.image_id for ref in open_source(str(folder)).refs()}
    assert alone[f"{place}{DECOMPOSED}"] == ids[f"{place}{DECOMPOSED}"]


def test_folders_that_differ_in_form_alone(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for form in ("NFC", "NFD"):
        (folder / unicodedata.normalize(form, "é")).mkdir(parents=True)
        (folder / unicodedata.normalize(form, "é") / "a.jpg").write_bytes(form.encode())
    assert sorted(map(outcome, planned(str(folder), tmp_path / "out"))) == [b"NFC", b"NFD"]


def test_a_list_with_both_forms_and_repeats(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in (COMPOSED, DECOMPOSED, "a.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    listing = tmp_path / "list.txt"
    lines = ["a.jpg", COMPOSED, DECOMPOSED, "./a.jpg", f"{tmp_path}/a.jpg", f"../{tmp_path.name}/{COMPOSED}"]
    listing.write_text("\n".join(lines))
    refs = planned(str(listing), tmp_path / "out")
    assert [ref.file_name for ref in refs] == ["a.jpg", COMPOSED, DECOMPOSED]
    assert f"Lines 1 and 4 of {listing} name the same image, which is taken once (3 such" in caplog.text


def test_a_json_with_both_forms_and_repeats(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in (COMPOSED, DECOMPOSED):
        (tmp_path / name).write_bytes(name.encode())
    coco = tmp_path / "list.json"
    entries = [{"file_name": COMPOSED}, {"file_name": DECOMPOSED}, {"file_name": COMPOSED}]
    coco.write_text(json.dumps({"images": entries}))
    refs = planned(str(coco), tmp_path / "out")
    assert [outcome(ref) for ref in refs] == [COMPOSED.encode(), DECOMPOSED.encode()]
    assert "Images 0 and 2" in caplog.text
    coco.write_text(json.dumps({"images": [{"id": 3, **entries[0]}, {"id": 3, **entries[0]}]}))
    assert len(planned(str(coco), tmp_path / "twice")) == 1
    coco.write_text(json.dumps({"images": [{"id": 3, **entries[0]}, {"id": 3, **entries[1]}]}))
    with pytest.raises(UserError, match="share the id 3"):
        planned(str(coco), tmp_path / "refused")
