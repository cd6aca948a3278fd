"""Bad input costs that input and nothing else."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from corpus import BadCorpus, encode, scene, write_photos
from saliency_prompt.models.backbones.lab_color import LabColor
from saliency_prompt.store.check import verify


def outcome(rows: dict[str, dict[str, object]]) -> dict[str, str | None]:
    return {name: row["reason"] for name, row in rows.items()}


def test_every_kind_of_bad_file_in_a_folder(world, bad_corpus: BadCorpus, rows) -> None:
    dataset, report = world.run(bad_corpus.folder, "out")
    found = rows(dataset)
    assert outcome(found) == bad_corpus.in_folder
    for row in found.values():
        assert (row["status"] == "quarantined") == (row["error"] is not None) == (row["reason"] is not None)
        unread = row["reason"] in ("unreadable", "path_escape", "too_many_bytes")
        assert (row["sha256"] is None) == unread
        assert str(bad_corpus.folder) not in str(row["error"])
    assert report.seal is not None
    assert verify(dataset).problems == []


def test_every_kind_of_bad_entry_in_a_coco_json(world, bad_corpus: BadCorpus, rows) -> None:
    dataset, _ = world.run(bad_corpus.coco, "out", root=str(bad_corpus.folder))
    assert outcome(rows(dataset)) == bad_corpus.in_coco


def test_good_images_are_what_they_are_without_bad_ones(world, bad_corpus: BadCorpus, rows) -> None:
    alone = bad_corpus.folder.with_name("alone")
    alone.mkdir()
    good = [name for name, reason in bad_corpus.in_folder.items() if reason is None and name != "link_in.jpg"]
    for name in good:
        shutil.copyfile(bad_corpus.folder / name, alone / name)
    first, _ = world.run(bad_corpus.folder, "mixed")
    second, _ = world.run(alone, "alone_out")
    masks = []
    for dataset in (first, second):
        kept = [row for c in dataset.commits() for row in dataset.read_shard(c).masks.to_pylist()]
        ids = {rows(dataset)[name]["image_id"] for name in good}
        masks.append([row for row in kept if row["image_id"] in ids])
    assert masks[0] == masks[1]
    assert len(masks[0]) >= 5


def test_repaired_images_are_taken_in_as_if_they_had_been_good(world, photos: Path, rows) -> None:
    whole = world.root_hash(photos, "whole")
    name = sorted(p.name for p in photos.iterdir())[4]
    data = (photos / name).read_bytes()
    (photos / name).write_bytes(data[:-200])
    dataset, report = world.run(photos, "out")
    assert report.seal is not None
    assert report.seal.counts.quarantined == 1
    world.run(photos, "out", retry=True)
    assert world.shards == []  # still broken: nothing is computed anew
    (photos / name).write_bytes(data)
    _, report = world.run(photos, "out", retry=True)
    assert world.shards == [1]
    assert report.seal is not None
    assert report.seal.root_hash == whole
    assert rows(dataset)[name]["status"] == "ok"
    assert verify(dataset).problems == []


def test_a_name_that_is_not_utf8_is_labelled_under_its_stored_form(world, tmp_path: Path, rows) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    try:
        Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg")).write_bytes(encode(scene(0)[0]))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    dataset, _ = world.run(folder, "out")
    assert {name: row["reason"] for name, row in rows(dataset).items()} == {r"caf\udce9.jpg": None}
    assert verify(dataset).problems == []


def test_nan_features_cost_their_image_alone(world, photos: Path, rows, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, _ = world.run(photos, "plain")
    forward = LabColor.forward
    poisoned = sorted(p.name for p in photos.iterdir())[3]
    marked = scene(99, 120, 160)[0]
    marked[:] = 255  # an all-white photograph is the poison
    (photos / poisoned).write_bytes(encode(marked))

    def broken(self: LabColor, images: torch.Tensor, level: str = "c5") -> dict[str, torch.Tensor]:
        features = forward(self, images, level)
        white = images.amin((1, 2, 3)) > 0.98
        features[level][white, 0, 0, 0] = float("nan")
        return features

    monkeypatch.setattr(LabColor, "forward", broken)
    dataset, _ = world.run(photos, "out")
    found = rows(dataset)
    assert found[poisoned]["reason"] == "non_finite_features"
    assert found[poisoned]["sha256"] is not None
    before = rows(plain)
    others = [name for name in found if name != poisoned]
    assert [found[name]["n_masks"] for name in others] == [before[name]["n_masks"] for name in others]


def test_a_photograph_of_one_colour_is_empty(world, tmp_path: Path, rows) -> None:
    folder = tmp_path / "flat"
    folder.mkdir()
    write_photos(folder, 1)
    (folder / "flat.png").write_bytes(encode(np.full((90, 120, 3), 77, np.uint8), "PNG"))
    found = rows(world.run(folder, "out")[0])
    assert found["flat.png"]["status"] == "empty"
    assert found["flat.png"]["n_masks"] == 0
