import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from makers import Maker, record_of
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.store.objects import ObjectStore
from saliency_prompt.store.reviewed import Reviewed
from saliency_prompt.store.verdicts import IMAGE, OvertakenError, VerdictFile, mask_key, verdicts_path

KEY = "0123456789abcdef"


def test_the_last_word_counts_and_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "d.verdicts.jsonl"
    file = VerdictFile(path, "root")
    assert not path.exists()
    file.say(7, KEY, "reject", ["shadow"])
    file.say(7, IMAGE, "accept", [])
    again = file.say(7, KEY, None, [" two words ", "é"], seen=1)
    assert (again.verdict, again.tags, again.version) == (None, ("two words", "é"), 2)
    other = VerdictFile(path)
    assert dict(other.of_image(7)) == dict(file.of_image(7))
    assert other.digest() == file.digest()
    head = json.loads(path.read_text().splitlines()[0])
    assert (head["verdicts_format"], head["root_hash"]) == (1, "root")
    file.say(7, KEY, None, [])
    file.say(7, IMAGE, None, [])
    assert file.digest() == VerdictFile(tmp_path / "none").digest()  # as if nothing had been said


def test_who_has_not_seen_the_newest_is_told(tmp_path: Path) -> None:
    first, second = VerdictFile(tmp_path / "v"), VerdictFile(tmp_path / "v")
    first.say(1, IMAGE, "accept", [], seen=0)
    with pytest.raises(OvertakenError) as caught:
        second.say(1, IMAGE, "reject", [], seen=0)
    assert caught.value.opinion == first.of_image(1)[IMAGE]
    second.say(1, IMAGE, "reject", [], seen=1)
    second.say(2, IMAGE, "accept", [], seen=0)  # of other images each may speak
    first.refresh()
    assert first.of_image(1)[IMAGE].verdict == "reject"


@pytest.mark.parametrize("cut", [2, 30, 60])
def test_a_line_that_a_crash_cut_off_costs_itself(tmp_path: Path, cut: int, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "v"
    file = VerdictFile(path)
    for image_id in range(4):
        file.say(image_id, KEY, "accept", [])
    path.write_bytes(path.read_bytes()[:-cut])
    again = VerdictFile(path)
    assert sorted(image_id for image_id, _, _ in again.items()) == [0, 1, 2]
    again.say(9, KEY, "reject", [])
    assert sorted(image_id for image_id, _, _ in VerdictFile(path).items()) == [0, 1, 2, 9]
    assert "1 lines are damaged" in caplog.text


def test_a_first_line_that_a_crash_cut_off_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "v"
    path.write_text('{"verdicts_form')
    VerdictFile(path).say(1, IMAGE, "accept", [])
    assert VerdictFile(path).of_image(1)[IMAGE].verdict == "accept"


@pytest.mark.parametrize("content", ["precious", "precious\n", '{"verdicts_format": 9}\n', "{}\n{}\n"])
def test_other_files_are_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "v"
    path.write_text(content)
    with pytest.raises(UserError, match=r"verdicts|format 9"):
        VerdictFile(path).say(1, IMAGE, "accept", [])
    assert path.read_text() == content


def test_tags_and_places_out_of_bounds_are_refused(tmp_path: Path) -> None:
    file = VerdictFile(tmp_path / "v")
    for tags in (["x" * 65], [""], ["a\nb"], [str(i) for i in range(33)]):
        with pytest.raises(UserError, match="tag"):
            file.say(1, IMAGE, None, tags)
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError):
        VerdictFile(tmp_path / "folder")
    with pytest.raises(UserError):
        VerdictFile(tmp_path / "missing" / "v").say(1, IMAGE, "accept", [])


def _speak(path: Path, first: int) -> None:
    file = VerdictFile(path)
    for image_id in range(first, first + 40):
        file.say(image_id, KEY, "accept", [])


def test_two_processes_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "v"
    spawn = multiprocessing.get_context("spawn")
    speakers = [spawn.Process(target=_speak, args=(path, first)) for first in (0, 40)]
    for speaker in speakers:
        speaker.start()
    for speaker in speakers:
        speaker.join()
        assert speaker.exitcode == 0
    assert sorted(image_id for image_id, _, _ in VerdictFile(path).items()) == list(range(80))


def test_the_file_lies_beside_the_data_set(make: Any, local_store: ObjectStore, store: ObjectStore) -> None:
    dataset = make.complete(local_store)
    root = local_store.local_root()
    assert verdicts_path(dataset) == root.parent / f"{root.name}.verdicts.jsonl"
    assert verdicts_path(dataset, "mine.jsonl") == Path("mine.jsonl")
    with pytest.raises(UserError, match="There are no verdicts"):
        Reviewed.open(dataset, "accepted")
    if store.local_root() is None:
        with pytest.raises(UserError, match="--verdicts"):
            verdicts_path(make.complete(store))


def test_what_readers_take(tmp_path: Path) -> None:
    file = VerdictFile(tmp_path / "v")
    records = {ref.image_id: record_of(ref) for ref in Maker().refs(12)}
    chosen = [record for record in records.values() if record.masks is not None and len(record.masks) >= 2][:4]
    untouched, rejected, accepted, mixed = chosen

    def key(record: Any, i: int) -> str:
        return mask_key(record.masks.counts[i], record.height, record.width)

    file.say(rejected.image_id, IMAGE, "reject", [])
    file.say(rejected.image_id, key(rejected, 0), "accept", [])
    file.say(accepted.image_id, IMAGE, "accept", ["sharp"])
    file.say(accepted.image_id, key(accepted, 1), "reject", ["shadow"])
    file.say(mixed.image_id, key(mixed, 0), "accept", [])
    file.say(mixed.image_id, key(mixed, 1), None, ["shadow"])

    def taken(record: Any, *choice: Any) -> tuple[bool, list[bool]]:
        reviewed = Reviewed(file, *choice)
        masks = reviewed.keeps_masks(record.image_id, record.masks.counts, record.height, record.width)
        return reviewed.keeps_image(record.image_id), masks.tolist()

    every = [True] * 9
    n = [len(record.masks) for record in chosen]
    assert taken(untouched) == (True, every[: n[0]])
    assert taken(rejected) == (False, [False] * n[1])
    assert taken(accepted) == (True, [True, False, *every[: n[2] - 2]])
    assert taken(mixed) == (True, every[: n[3]])
    assert taken(untouched, "accepted") == (False, [False] * n[0])
    assert taken(accepted, "accepted") == (True, [True, False, *every[: n[2] - 2]])
    assert taken(mixed, "accepted") == (True, [True] + [False] * (n[3] - 1))
    assert taken(mixed, "not-rejected", ["shadow"]) == (True, [False, True] + [False] * (n[3] - 2))
    assert taken(accepted, "not-rejected", ["shadow"]) == (False, [False] * n[2])  # the mask that bears it is rejected
    assert taken(accepted, "not-rejected", ["sharp"]) == (True, [True, False, *every[: n[2] - 2]])
    assert np.unique([key(mixed, i) for i in range(n[3])]).size == n[3]


def test_a_file_that_was_put_in_its_place_counts(tmp_path: Path) -> None:
    file, other = VerdictFile(tmp_path / "v"), VerdictFile(tmp_path / "w")
    file.say(1, IMAGE, "accept", [])
    other.say(2, IMAGE, "reject", [])
    other.path.replace(file.path)
    file.refresh()
    assert [image_id for image_id, _, _ in file.items()] == [2]
    file.path.unlink()
    file.say(3, IMAGE, "accept", [], seen=0)
    assert [image_id for image_id, _, _ in VerdictFile(file.path).items()] == [3]
