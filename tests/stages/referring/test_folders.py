"""Readers of the six tasks, on small files in the real formats."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.stages.referring.folders import (
    Videos,
    match_files,
    read_classes,
    read_labels,
    read_parts,
    read_salient,
    shift_classes,
    write_submission,
)
from saliency_prompt.stages.referring.prompts import task_prompt


def picture(path: Path, values: np.ndarray, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if palette:
        image = image.convert("P")
        image.putdata(values.ravel().tolist())
        image.putpalette([0, 0, 0, 236, 95, 103, 249, 145, 87] + [0] * 750)
    image.save(path)


def test_ecssd_and_duts(tmp_path: Path) -> None:
    for images, masks in (("images", "ground_truth_mask"), ("DUTS-TE-Image", "DUTS-TE-Mask")):
        picture(tmp_path / images / "0001.jpg", np.zeros((4, 6, 3), np.uint8))
        picture(tmp_path / masks / "0001.png", np.array([[0, 255, 200], [10, 127, 128]], np.uint8))
        (one,) = match_files(tmp_path / images, tmp_path / masks)
        assert one.ref.file_name == "0001.jpg"
        assert read_salient(one.labels).tolist() == [[False, True, True], [False, False, True]]
    picture(tmp_path / "images" / "0002.jpg", np.zeros((4, 6, 3), np.uint8))
    with pytest.raises(UserError, match=r"no 0002.png"):
        match_files(tmp_path / "images", tmp_path / "ground_truth_mask")
    with pytest.raises(UserError, match="no folder"):
        match_files(tmp_path / "images", tmp_path / "none")


def test_semantic_labels_of_coco_stuff_ade_and_lip(tmp_path: Path) -> None:
    values = np.array([[0, 1, 2], [2, 1, 255]], np.uint8)
    for palette in (False, True):
        picture(tmp_path / "a" / "x.png", values, palette)
        assert read_labels(tmp_path / "a" / "x.png").tolist() == values.tolist()
    assert shift_classes(values, zero_is_nothing=True).tolist() == [[255, 0, 1], [1, 0, 255]]
    assert shift_classes(values, zero_is_nothing=False) is values
    ade = "Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.1576\t11664\t1172\t1\twall\n"
    ade += "2\t0.1072\t6046\t612\t1\tbuilding;edifice\n"
    (tmp_path / "objectInfo150.txt").write_text(ade)
    assert read_classes(tmp_path / "objectInfo150.txt") == ["wall", "building"]
    (tmp_path / "names.txt").write_text("person\n\ntraffic light, signal\n")
    assert read_classes(tmp_path / "names.txt") == ["person", "traffic light"]
    (tmp_path / "names.txt").write_text("a\n,\n")
    for file, words in ((tmp_path / "names.txt", "lacks names"), (tmp_path / "none", "cannot be read")):
        with pytest.raises(UserError, match=words):
            read_classes(file)
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    (tmp_path / "y.png").write_bytes(b"JFIF")
    for name in ("x.png", "y.png"):
        with pytest.raises(UserError, match="restore it"):
            read_labels(tmp_path / name)


def test_part_image_net(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 0, "file_name": "n01.JPEG", "height": 10, "width": 12}],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 0, "segmentation": [[0, 0, 4, 0, 4, 4, 0, 4]]},
            {"id": 2, "image_id": 0, "category_id": 0, "segmentation": {"size": [10, 12], "counts": [100, 20]}},
            {"id": 3, "image_id": 9, "category_id": 0, "segmentation": [[0, 0, 4, 0, 4, 4, 0, 4]]},
        ],
        "categories": [
            {"id": 0, "name": "Quadruped Head", "supercategory": "Quadruped"},
            {"id": 1, "name": "Quadruped Body", "supercategory": "Quadruped"},
        ],
    }
    (tmp_path / "val.json").write_text(json.dumps(content))
    (one,), names = read_parts(tmp_path / "val.json", "photos/")
    assert names == ["quadruped body", "quadruped head"]
    assert list(one.parts) == ["quadruped head"]
    assert one.ref.uri == "photos/n01.JPEG"
    from pycocotools import mask as coco_mask

    assert coco_mask.area(one.parts["quadruped head"]) == 36
    for text in ("[]", "{", '{"images": [], "annotations": [], "categories": []}'):
        (tmp_path / "val.json").write_text(text)
        with pytest.raises(UserError, match="PartImageNet"):
            read_parts(tmp_path / "val.json", "photos")


def test_ref_youtube_vos(tmp_path: Path) -> None:
    said = {"0": {"exp": "a dog", "obj_id": "1"}, "1": {"exp": "the cat", "obj_id": "2"}}
    meta = {"videos": {"v1": {"expressions": said, "frames": ["00000", "00005"]}}}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    picture(tmp_path / "Annotations" / "v1" / "00000.png", np.array([[0, 1, 2], [1, 1, 0]], np.uint8), palette=True)
    videos = Videos(tmp_path / "meta.json", tmp_path / "JPEGImages", tmp_path / "Annotations")
    ((video, expressions),) = videos.by_video()
    assert [(one.name, one.text, one.target) for one in expressions] == [("0", "a dog", 1), ("1", "the cat", 2)]
    assert videos.frame(video, "00005").uri.endswith("JPEGImages/v1/00005.jpg")
    truth = videos.truth(video, "00000")
    assert truth is not None
    assert (truth == 1).sum() == 3
    assert videos.truth(video, "00005") is None
    write_submission(tmp_path / "out", expressions[1], "00005", np.eye(3) > 0)
    written = np.array(Image.open(tmp_path / "out" / "Annotations" / "v1" / "1" / "00005.png"))
    assert written.tolist() == (np.eye(3) * 255).tolist()
    hidden = {"videos": {"v1": {"expressions": {"0": {"exp": "a dog"}}, "frames": ["00000"]}}}
    (tmp_path / "meta.json").write_text(json.dumps(hidden))
    assert Videos(tmp_path / "meta.json", tmp_path, None).expressions[0].target is None
    for text in ("{}", '{"videos": {}}', "["):
        (tmp_path / "meta.json").write_text(text)
        with pytest.raises(UserError, match="Ref-YouTube-VOS"):
            Videos(tmp_path / "meta.json", tmp_path, None)


def test_prompts_are_those_of_table_1() -> None:
    assert task_prompt("salient") == "the most salient object"
    assert task_prompt("ris", "the left dog") == task_prompt("rvos", "the left dog") == "the left dog"
    assert {task_prompt(task, "dog") for task in ("semantic", "open-vocabulary", "part")} == {"all dog"}
