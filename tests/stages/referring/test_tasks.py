"""Data sets of other tasks as sources of pairs, on small files in the real formats."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.training.unilseg import TaskData
from saliency_prompt.stages.referring.tasks import open_task

LABELS = np.array([[0, 1, 2, 2], [2, 1, 255, 0]], np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, values in (("images", np.zeros((2, 4, 3))), ("labels", LABELS), ("masks", (LABELS == 2) * 255)):
        (tmp_path / name).mkdir()
        Image.fromarray(values.astype(np.uint8)).save(tmp_path / name / "a.png")
    (tmp_path / "names.txt").write_text("sky\ncat\ndog\n")
    return tmp_path


def data(folder: Path, task: str, gt: str, **more: object) -> TaskData:
    return TaskData(task=task, images=str(folder / "images"), gt=str(folder / gt), **more)  # type: ignore[arg-type]


def test_classes_that_occur(folder: Path) -> None:
    source = open_task(data(folder, "semantic", "labels", classes=str(folder / "names.txt")))
    assert list(source.texts()) == ["all sky", "all cat", "all dog"]
    for place in range(3):
        assert np.array_equal(source.pair(place).mask(2, 4), place == LABELS)
    shifted = open_task(data(folder, "part", "labels", classes=str(folder / "names.txt"), zero_is_nothing=True))
    assert list(shifted.texts()) == ["all sky", "all cat"]
    assert np.array_equal(shifted.pair(0).mask(2, 4), LABELS == 1)
    assert source.sha256 != shifted.sha256 or source.rows != shifted.rows
    (folder / "names.txt").write_text("sky\ncat\n")
    with pytest.raises(UserError, match="zero_is_nothing"):
        open_task(data(folder, "semantic", "labels", classes=str(folder / "names.txt")))
    with pytest.raises(UserError, match="`classes`"):
        open_task(data(folder, "semantic", "labels"))


def test_salient_objects(folder: Path) -> None:
    source = open_task(data(folder, "salient", "masks"))
    assert list(source.texts()) == ["the most salient object"]
    assert np.array_equal(source.pair(0).mask(2, 4), LABELS == 2)
    before = source.sha256
    Image.fromarray(((LABELS == 1) * 255).astype(np.uint8)).save(folder / "masks" / "a.png")
    assert open_task(data(folder, "salient", "masks")).sha256 != before


def test_parts(folder: Path) -> None:
    content = {
        "images": [{"id": 0, "file_name": "a.png", "height": 2, "width": 4}],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 0, "segmentation": {"size": [2, 4], "counts": [4, 4]}},
        ],
        "categories": [{"id": 0, "name": "Head"}, {"id": 1, "name": "Body"}],
    }
    (folder / "parts.json").write_text(json.dumps(content))
    source = open_task(data(folder, "part", "parts.json"))
    assert list(source.texts()) == ["all head"]
    assert source.pair(0).mask(2, 4).sum() == 4
    (folder / "parts.json").write_text(json.dumps({**content, "annotations": []}))
    with pytest.raises(UserError, match="nothing to train on"):
        open_task(data(folder, "part", "parts.json"))


def test_videos(folder: Path) -> None:
    said = {"0": {"exp": "a dog", "obj_id": "1"}, "1": {"exp": "the cat", "obj_id": "3"}}
    meta = {"videos": {"v": {"expressions": said, "frames": ["00000", "00005"]}}}
    (folder / "meta.json").write_text(json.dumps(meta))
    (folder / "Annotations" / "v").mkdir(parents=True)
    Image.fromarray(LABELS).save(folder / "Annotations" / "v" / "00000.png")
    source = open_task(data(folder, "rvos", "meta.json", annotations=str(folder / "Annotations")))
    assert list(source.texts()) == ["a dog", "the cat"]  # of the frame that has masks
    assert np.array_equal(source.pair(0).mask(2, 4), LABELS == 1)
    assert not source.pair(1).mask(2, 4).any()
    with pytest.raises(UserError, match="`annotations`"):
        open_task(data(folder, "rvos", "meta.json"))
