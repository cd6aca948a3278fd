"""Masks as other programs write them, found again; and files that are broken."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.records import ImageRef
from saliency_prompt.stages.mask_files.base import rle_of_json, usable
from saliency_prompt.stages.mask_files.coco import CocoMasks
from saliency_prompt.stages.mask_files.png import PngMasks
from saliency_prompt.stages.mask_files.registry import guess_format
from saliency_prompt.stages.mask_files.sam import SamMasks
from saliency_prompt.stages.mask_files.yolo import YoloMasks
from saliency_prompt.stages.read import BadImage

SIZE = (40, 60)


def ref(name: str = "a/photo.jpg", image_id: int = 5) -> ImageRef:
    return ImageRef(image_id, name, "")


def box(y: int, x: int, h: int, w: int) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8, order="F")
    mask[y : y + h, x : x + w] = 1
    return mask


def rle(mask: np.ndarray) -> dict:
    packed = coco_mask.encode(mask)
    return {"size": list(SIZE), "counts": packed["counts"].decode()}


def drawn(found) -> list[np.ndarray]:
    return [coco_mask.decode({"size": list(SIZE), "counts": one.counts}) for one in found]


def test_coco_in_three_forms_by_name_and_without_crowds(tmp_path: Path) -> None:
    mask = box(3, 4, 10, 20)
    flat = mask.ravel("F")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat])))
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    annotations = [
        {"image_id": 1, "category_id": 9, "segmentation": [[4, 3, 24, 3, 24, 13, 4, 13]]},
        {"image_id": 1, "category_id": 3, "segmentation": rle(mask), "score": 0.5},
        {"image_id": 1, "category_id": 9, "segmentation": {"size": list(SIZE), "counts": counts}},
        {"image_id": 1, "category_id": 9, "segmentation": rle(mask), "iscrowd": 1},
        {"image_id": 1, "category_id": 9, "segmentation": {"size": list(SIZE), "counts": "~~~"}},
        {"image_id": 1, "category_id": 9, "bbox": [1, 2, 3, 4]},
    ]
    categories = [{"id": 9, "name": "dog"}, {"id": 3, "name": "cat"}]
    images = [{"id": 1, "file_name": "a/photo.jpg"}]
    path = tmp_path / "gt.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    files = CocoMasks(path)
    assert files.class_names == ("cat", "dog")
    found = files.find(ref(), SIZE)
    assert [(one.label, one.score) for one in found] == [(1, 1.0), (0, 0.5), (1, 1.0)]
    for again in drawn(found):
        np.testing.assert_array_equal(again, mask)
    assert len(files.find(ref("photo.jpg", 77), SIZE)) == 3  # by its last part
    assert files.find(ref("other.jpg", 1), SIZE) == []  # the json says whose the id is
    with pytest.raises(BadImage, match="another size"):
        files.find(ref(), (60, 40))


def test_coco_results_are_found_by_id(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    row = {"image_id": 5, "category_id": 1, "segmentation": rle(box(0, 0, 5, 5)), "score": 0.25}
    path.write_text(json.dumps([row, {**row, "score": float("nan")}]))
    files = CocoMasks(path)
    assert [one.score for one in files.find(ref(), SIZE)] == [0.25, 0.0]
    assert files.class_names == ("object",)


@pytest.mark.parametrize("text", ["{", "[1, 2]", "{}", '{"annotations": 3}'])
def test_what_is_no_coco_json_is_said(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"x\.json"):
        CocoMasks(path)


def test_hostile_polygons_and_runs_are_harmless() -> None:
    far = [[-1e30, 0, 1e30, 0, 1e30, 1e30]]
    assert rle_of_json(far, SIZE) is not None
    for broken in ([[1, 2]], [["a"] * 6], [[float("nan")] * 6], {"size": list(SIZE), "counts": [-1, 2401]}, 3, None):
        assert rle_of_json(broken, SIZE) is None
    assert usable([], SIZE) == []


def test_yolo_polygons_boxes_and_scores(tmp_path: Path) -> None:
    (tmp_path / "labels" / "train" / "a").mkdir(parents=True)
    (tmp_path / "data.yaml").write_text("names: {0: cat, 1: dog}\n")
    corners = "0.1 0.25 0.5 0.25 0.5 0.75 0.1 0.75"
    lines = [f"1 {corners}", f"0 {corners} 0.5", "0 0.5 0.5 0.1 0.1", "0 0.5 0.5 0.1 0.1 0.9", "x y", "", "1 0 0 1 1"]
    (tmp_path / "labels" / "train" / "a" / "photo.txt").write_text("\n".join(lines))
    files = YoloMasks(tmp_path)
    assert files.class_names == ("cat", "dog")
    found = files.find(ref(), SIZE)
    assert [(one.label, one.score) for one in found] == [(1, 1.0), (0, 0.5)]
    for again in drawn(found):
        np.testing.assert_array_equal(again, box(10, 6, 20, 24))


def test_png_of_numbers_of_a_palette_and_of_each_mask(tmp_path: Path) -> None:
    first, second = box(0, 0, 5, 5), box(20, 20, 10, 10)
    (tmp_path / "numbers" / "a").mkdir(parents=True)
    Image.fromarray((first + 300 * second.astype(np.uint16)).astype(np.uint16)).save(tmp_path / "numbers/a/photo.png")
    for again, mask in zip(drawn(PngMasks(tmp_path / "numbers").find(ref(), SIZE)), (first, second), strict=True):
        np.testing.assert_array_equal(again, mask)

    (tmp_path / "voc").mkdir()
    palette = Image.fromarray(np.ascontiguousarray(first + 255 * second))
    palette.putpalette([value for value in range(256) for _ in range(3)])
    palette.save(tmp_path / "voc" / "photo.png")
    (again,) = drawn(PngMasks(tmp_path / "voc").find(ref(), SIZE))
    np.testing.assert_array_equal(again, first)

    (tmp_path / "each" / "photo").mkdir(parents=True)
    Image.fromarray(np.ascontiguousarray(second * 255)).save(tmp_path / "each" / "photo" / "0.png")
    (tmp_path / "each" / "photo" / "1.png").write_bytes(b"broken")
    (again,) = drawn(PngMasks(tmp_path / "each").find(ref(), SIZE))
    np.testing.assert_array_equal(again, second)
    with pytest.raises(BadImage, match="another size"):
        PngMasks(tmp_path / "voc").find(ref(), (1, 1))


def test_sam_json_and_folders(tmp_path: Path) -> None:
    mask = box(1, 2, 3, 4)
    (tmp_path / "sa1b").mkdir()
    rows = [{"segmentation": rle(mask), "predicted_iou": 1.01, "stability_score": 0.5}, {"segmentation": rle(mask)}]
    content = {"image": {"file_name": "photo.jpg"}, "annotations": rows}
    (tmp_path / "sa1b" / "photo.json").write_text(json.dumps(content))
    found = SamMasks(tmp_path / "sa1b").find(ref(), SIZE)
    assert [one.score for one in found] == [1.0, 1.0]
    folder = tmp_path / "amg" / "photo"
    folder.mkdir(parents=True)
    Image.fromarray(np.ascontiguousarray(mask * 255)).save(folder / "0.png")
    (folder / "metadata.csv").write_text("id,area,predicted_iou\n0,12,0.75\n../x,1,1\n")
    files = SamMasks(tmp_path / "amg")
    (one,) = files.find(ref(), SIZE)
    assert one.score == 0.75
    np.testing.assert_array_equal(drawn([one])[0], mask)
    before = files.sha256
    (folder / "metadata.csv").write_text("id,area,predicted_iou\n0,12,0.5\n")
    assert SamMasks(tmp_path / "amg").sha256 != before


def test_formats_are_guessed(tmp_path: Path) -> None:
    for name, file in (("coco", "x.json"), ("sam", "s/a.json"), ("png", "p/a.png"), ("yolo", "y/a.txt")):
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.touch()
        assert guess_format(path if name == "coco" else path.parent) == name


def test_a_name_that_two_have_is_nobodys(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.ascontiguousarray(box(0, 0, 2, 2))).save(tmp_path / folder / "x.png")
    files = PngMasks(tmp_path)
    assert len(files.find(ref("a/x.jpg"), SIZE)) == 1
    assert files.find(ref("x.jpg"), SIZE) == []


def test_empty_places_are_said(tmp_path: Path) -> None:
    for kind in (YoloMasks, PngMasks, SamMasks):
        with pytest.raises(UserError, match=str(tmp_path)):
            kind(tmp_path)
