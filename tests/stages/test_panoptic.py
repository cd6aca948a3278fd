"""The panoptic format and Panoptic Quality: by hand, fed back, and against torchmetrics."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saliency_prompt.models.solo.panoptic import Segment
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.stages.panoptic import (
    Category,
    Picture,
    Quality,
    SegmentInfo,
    as_annotation,
    decode_ids,
    encode_ids,
    encode_png,
    read_ids,
    read_panoptic,
    semantic_map,
    thing_masks,
    with_categories,
)

REAL = Path(__file__).resolve().parents[3] / "shared/data/panoptic2"
CATEGORIES = [Category(1, "dog", True), Category(2, "cat", True), Category(7, "sky", False)]


def segments(*rows: tuple[int, int] | tuple[int, int, bool]) -> list[SegmentInfo]:
    return [SegmentInfo(*row) for row in rows]


def score(found: np.ndarray, has: list[SegmentInfo], truth: np.ndarray, wants: list[SegmentInfo]) -> dict[str, object]:
    quality = Quality(CATEGORIES)
    quality.add(found, has, truth, wants)
    return quality.summary()


def test_three_segments_by_hand() -> None:
    truth = np.zeros((10, 10), np.int64)
    truth[:, :4], truth[:5, 4:], truth[5:, 4:] = 11, 12, 13
    found = truth.copy()
    found[:, 3] = 12  # the dog loses ten pixels to the cat, of which five are the cat's rows
    quality = score(found, segments((11, 1), (12, 2), (13, 7)), truth, segments((11, 1), (12, 2), (13, 7)))
    dog, cat, sky = 30 / 40, 30 / 40, 1.0
    assert quality["PQ"] == pytest.approx(100 * (dog + cat + sky) / 3)
    assert quality["PQ_th"] == quality["SQ_th"] == pytest.approx(75)
    assert quality["RQ"] == quality["PQ_st"] == pytest.approx(100)
    assert quality["categories"] == 3


def test_a_wrong_class_costs_both_and_half_an_overlap_is_none() -> None:
    truth = np.full((4, 4), 5, np.int64)
    assert score(truth, segments((5, 2)), truth, segments((5, 1)))["PQ"] == 0
    half = truth.copy()
    half[:2] = 0
    assert score(half, segments((5, 1)), truth, segments((5, 1)))["PQ"] == 0  # IoU of exactly a half
    half[2, 0] = 0
    half[:2] = 5
    assert score(half, segments((5, 1)), truth, segments((5, 1)))["PQ"] == pytest.approx(100 * 15 / 16)


def test_void_and_crowds_excuse_what_lies_on_them() -> None:
    truth = np.zeros((4, 8), np.int64)
    truth[:, :4] = 3
    exact, wide = truth.copy(), np.full_like(truth, 3)
    one = segments((3, 1))
    assert score(wide, one, truth, one)["PQ"] == pytest.approx(100)  # the union leaves void out
    on_void = np.where(truth == 0, 9, 0) + exact
    assert score(on_void, segments((3, 1), (9, 1)), truth, one)["PQ"] == pytest.approx(100)

    truth[:, 4:] = 8
    crowd = segments((3, 1), (8, 1, True))
    assert score(on_void, segments((3, 1), (9, 1)), truth, crowd)["PQ"] == pytest.approx(100)
    other = score(on_void, segments((3, 1), (9, 2)), truth, crowd)
    assert other["PQ"] == pytest.approx(50)  # a crowd of dogs excuses no cat
    assert score(exact, one, truth, crowd)["PQ"] == pytest.approx(100)  # a crowd is not missed


def test_nothing_at_all() -> None:
    nothing = np.zeros((2, 2), np.int64)
    assert score(nothing, [], nothing, [])["PQ"] is None
    assert score(nothing, [], nothing + 4, segments((4, 7)))["PQ"] == 0
    with pytest.raises(UserError, match="size"):
        score(nothing, [], np.zeros((3, 2), np.int64), [])


def rectangles(seed: int, void: bool) -> tuple[np.ndarray, list[SegmentInfo]]:
    """A picture of up to six rectangles over sky; stuff is one segment, as torchmetrics has it."""
    generator = np.random.default_rng(seed)
    ids = np.full((16, 16), 0 if void else 1, np.int64)
    categories = {1: 7}
    for number in range(2, 8):
        top, left = generator.integers(0, 12, 2)
        height, width = generator.integers(3, 10, 2)
        categories[number] = int(generator.integers(1, 3))
        ids[top : top + height, left : left + width] = number
    return ids, [SegmentInfo(n, categories[n]) for n in np.unique(ids).tolist() if n]


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_quality_agrees_with_torchmetrics(seed: int, void: bool) -> None:
    detection = pytest.importorskip("torchmetrics.detection")
    truth, wants = rectangles(seed, void)
    found, has = rectangles(seed + 1, False)
    if seed % 4:  # mostly right, so that there is something to match
        found = np.roll(truth, 1, axis=1)
        found[found == 0] = 1
        listed = [*[one for one in wants if one.number != 1], SegmentInfo(1, 7)]
        has = [one for one in listed if (found == one.number).any()]

    def both(ids: np.ndarray, listed: list[SegmentInfo]) -> torch.Tensor:
        category = np.full(ids.shape, 99)
        for one in listed:
            category[ids == one.number] = one.category
        return torch.from_numpy(np.stack([category, ids], axis=2))[None]

    metric = detection.PanopticQuality(
        things={1, 2}, stuffs={7}, return_per_class=True, allow_unknown_preds_category=True
    )
    target = both(truth, wants)
    target[target[..., 0] == 99] = torch.tensor(metric.void_color)
    theirs = metric(both(found, has), target)[0].tolist()
    quality = Quality(CATEGORIES)
    quality.add(found, has, truth, wants)
    for category, value in zip((1, 2, 7), theirs, strict=True):
        tally = quality.tallies.get(category)
        if tally is None:
            continue
        ours = tally.iou / (tally.matched + tally.false_found / 2 + tally.missed / 2)
        assert ours == pytest.approx(value, abs=1e-6)


@given(st.integers(0, 2**24 - 1))
def test_numbers_survive_their_colours(number: int) -> None:
    assert decode_ids(encode_ids(np.array([[number]])))[0, 0] == number


def small(tmp_path: Path) -> tuple[Path, Path, dict[str, object]]:
    ids = np.array([[0, 1], [70000, 70000]], np.int64)
    (tmp_path / "a.png").write_bytes(encode_png(ids))
    content = {
        "images": [{"id": 4, "file_name": "a.jpg", "height": 2, "width": 2}],
        "categories": [{"id": 1, "name": "dog", "isthing": 1}, {"id": 7, "name": "sky", "isthing": 0}],
        "annotations": [
            {
                "image_id": 4,
                "file_name": "a.png",
                "segments_info": [{"id": 1, "category_id": 1, "iscrowd": 0}, {"id": 70000, "category_id": 7}],
            }
        ],
    }
    (tmp_path / "p.json").write_text(json.dumps(content))
    return tmp_path / "p.json", tmp_path / "a.png", content


def test_files_are_read_as_they_were_written(tmp_path: Path) -> None:
    pictures, categories = read_panoptic(small(tmp_path)[0])
    assert pictures == [Picture(4, "a.jpg", "a.png", 2, 2, (SegmentInfo(1, 1), SegmentInfo(70000, 7)))]
    ids = read_ids(tmp_path / "a.png", pictures[0])
    assert ids.tolist() == [[0, 1], [70000, 70000]]
    assert semantic_map(ids, pictures[0].segments, categories).tolist() == [[255, 0], [1, 1]]


def test_what_a_model_paints_is_written_as_coco_has_it() -> None:
    ids = np.array([[1, 1, 0], [2, 2, 0], [2, 2, 0]])
    painted = [Segment(1, True, 1, 2, 0.9), Segment(2, False, 0, 4, None), Segment(3, True, 0, 5, 0.8)]
    infos = with_categories(painted, CATEGORIES)
    assert infos == segments((1, 2), (2, 7), (3, 1))
    entry = as_annotation(4, "a.png", ids, infos)
    assert [(one["id"], one["category_id"], one["area"], one["bbox"]) for one in entry["segments_info"]] == [
        (1, 2, 2, [0, 0, 2, 1]),
        (2, 7, 4, [0, 1, 2, 2]),
    ]


def test_things_are_learned_one_by_one_without_crowds() -> None:
    ids = np.array([[1, 1, 0], [2, 3, 4]])
    masks, labels = thing_masks(ids, segments((1, 2), (2, 7), (3, 1), (4, 1, True)), CATEGORIES)
    assert labels.tolist() == [1, 0]
    assert masks.tolist() == [[[1, 1, 0], [0, 0, 0]], [[0, 0, 0], [0, 1, 0]]]
    assert thing_masks(ids, [], CATEGORIES)[0].shape == (0, 2, 3)


def test_a_json_that_disagrees_with_its_png_is_said(tmp_path: Path) -> None:
    path, png, content = small(tmp_path)
    picture = read_panoptic(path)[0][0]
    with pytest.raises(UserError, match="70000"):
        read_ids(png, replace(picture, segments=picture.segments[:1]))
    with pytest.raises(UserError, match="lacks"):
        read_ids(png, replace(picture, segments=(*picture.segments, SegmentInfo(9, 1))))
    with pytest.raises(UserError, match="2 x 2"):
        read_ids(png, replace(picture, width=3))
    png.write_bytes(b"no png")
    with pytest.raises(UserError, match="PNG"):
        read_ids(png, picture)
    for broken, word in (("[]", "panoptic"), ("{", "JSON"), (json.dumps({**content, "categories": []}), "category")):
        path.write_text(broken)
        with pytest.raises(UserError, match=word):
            read_panoptic(path)
    with pytest.raises(UserError, match="existing"):
        read_panoptic(tmp_path / "none.json")


def test_real_pictures_fed_back_have_quality_100() -> None:
    if not REAL.is_dir():
        pytest.skip("needs ../shared/data/panoptic2")
    pictures, categories = read_panoptic(REAL / "panoptic.json")
    content = json.loads((REAL / "panoptic.json").read_text())
    official = {one["image_id"]: one for one in content["annotations"]}
    quality = Quality(categories)
    assert len(pictures) == 2
    for picture in pictures:
        ids = read_ids(REAL / "panoptic" / picture.png_file, picture)
        quality.add(ids, [one for one in picture.segments if not one.crowd], ids, picture.segments)
        semantic = semantic_map(ids, picture.segments, categories)
        assert semantic[ids == 0].tolist() == [255] * int((ids == 0).sum())
        assert len(np.unique(semantic)) > 3
        entry = as_annotation(picture.image_id, picture.png_file, ids, picture.segments)
        listed = {one["id"]: (one["area"], one["bbox"]) for one in official[picture.image_id]["segments_info"]}
        assert {one["id"]: (one["area"], one["bbox"]) for one in entry["segments_info"]} == listed
        again = cv2.imdecode(np.frombuffer(encode_png(ids), np.uint8), cv2.IMREAD_COLOR_RGB)
        assert np.array_equal(decode_ids(again), ids)
    summary = quality.summary()
    assert summary["PQ"] == summary["PQ_th"] == summary["PQ_st"] == pytest.approx(100)
    assert summary["categories"] > 5
