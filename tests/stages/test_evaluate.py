import json

import numpy as np
import pyarrow as pa
import pytest
from pycocotools import mask as coco_mask

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.records import IMAGES_SCHEMA, MASKS_SCHEMA
from saliency_prompt.stages.evaluate import (
    METRICS,
    PYCOCOTOOLS,
    detections_from_dataset,
    evaluate_coco,
    fastest_judge,
    match_image_ids,
)

SIZE = 100


def rle(y, x, h, w, height=SIZE, width=SIZE):
    mask = np.zeros((height, width), np.uint8, order="F")
    mask[y : y + h, x : x + w] = 1
    encoded = coco_mask.encode(mask)
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def truth_annotation(number, image_id, category, place, **more):
    y, x, h, w = place
    fields = {"id": number, "image_id": image_id, "category_id": category, "iscrowd": 0, "area": h * w}
    return {**fields, "bbox": [x, y, w, h], "segmentation": rle(*place), **more}


def detection(image_id, place, score=0.9, **more):
    return {"image_id": image_id, "segmentation": rle(*place), "score": score, **more}


@pytest.fixture
def write(tmp_path):
    def write_truth(annotations, images=(1, 2), categories=(1, 3), names=None):
        names = names or {i: f"{i:012d}.jpg" for i in images}
        content = {
            "images": [{"id": i, "file_name": names[i], "height": SIZE, "width": SIZE} for i in images],
            "annotations": annotations,
            "categories": [{"id": c, "name": f"c{c}"} for c in categories],
        }
        path = tmp_path / "truth.json"
        path.write_text(json.dumps(content))
        return path

    return write_truth


LEFT, RIGHT = (10, 5, 40, 40), (10, 55, 40, 40)


def two_objects(first_id=1):
    return [truth_annotation(first_id, 1, 1, LEFT), truth_annotation(first_id + 1, 1, 3, RIGHT)]


@pytest.mark.parametrize("category", [None, 1, 2, 77])
def test_category_of_a_detection_does_not_matter_when_class_agnostic(write, category):
    more = {} if category is None else {"category_id": category}
    report = evaluate_coco(write(two_objects()), [detection(1, LEFT, **more), detection(1, RIGHT, **more)])
    assert report["segm"]["AP"] == report["bbox"]["AP"] == pytest.approx(100)
    assert tuple(report["segm"]) == METRICS


def test_category_matters_otherwise(write):
    path = write(two_objects())
    found = [detection(1, LEFT, category_id=1), detection(1, RIGHT, category_id=1)]
    assert evaluate_coco(path, found, class_agnostic=False)["segm"]["AP"] == pytest.approx(50)
    with pytest.raises(UserError, match="1 detections have a category"):
        evaluate_coco(path, [found[0], detection(1, RIGHT, category_id=2)], class_agnostic=False)


def test_annotation_id_zero_is_matched(write):
    # taken as it is, pycocotools would give 25.25
    report = evaluate_coco(write(two_objects(first_id=0)), [detection(1, LEFT), detection(1, RIGHT)])
    assert report["segm"]["AP"] == pytest.approx(100)


def test_unmatched_detection_is_binned_by_its_mask(write):
    # a false positive with a small mask in a large box must not count among the large objects
    large = (0, 0, 98, 98)
    false = detection(1, (50, 99, 10, 1), score=1.0, bbox=[0, 0, 100, 100])
    report = evaluate_coco(write([truth_annotation(1, 1, 1, large)]), [false, detection(1, large, score=0.5)])
    assert report["segm"]["APl"] == report["bbox"]["APl"] == pytest.approx(100)
    assert report["segm"]["AP"] == report["bbox"]["AP"] == pytest.approx(50)


def test_boxes_come_from_masks_and_plain_boxes_are_taken_too(write):
    path = write([truth_annotation(1, 1, 1, LEFT)])
    wrong = detection(1, LEFT, bbox=[0, 0, 3, 3])
    assert evaluate_coco(path, [wrong], ("bbox",))["bbox"]["AP"] == pytest.approx(100)
    y, x, h, w = LEFT
    plain = {"image_id": 1, "bbox": [x, y, w, h], "score": 1.0}
    assert evaluate_coco(path, [plain], ("bbox",))["bbox"]["AP"] == pytest.approx(100)
    with pytest.raises(UserError, match="evaluate boxes only"):
        evaluate_coco(path, [plain], ("segm",))


def test_crowds_are_neither_missed_nor_false(write):
    crowd = truth_annotation(2, 1, 1, RIGHT, iscrowd=1)
    path = write([truth_annotation(1, 1, 1, LEFT), crowd])
    assert evaluate_coco(path, [detection(1, LEFT)])["segm"]["AR100"] == pytest.approx(100)
    inside_crowd = detection(1, (12, 60, 10, 10), score=1.0)
    assert evaluate_coco(path, [inside_crowd, detection(1, LEFT)])["segm"]["AP"] == pytest.approx(100)


def test_images_without_detections_count(write):
    path = write([truth_annotation(1, 1, 1, LEFT), truth_annotation(2, 2, 1, LEFT)])
    report = evaluate_coco(path, [detection(1, LEFT)])
    assert report["segm"]["AR100"] == pytest.approx(50)
    assert report["images"] == 2
    alone = evaluate_coco(path, [detection(1, LEFT)], image_ids=[1])
    assert alone["segm"]["AR100"] == pytest.approx(100)
    assert evaluate_coco(path, [])["segm"]["AP"] == 0
    with pytest.raises(UserError, match="1 of the 2 images to evaluate"):
        evaluate_coco(path, [], image_ids=[1, 9])


def test_detections_of_unknown_images(write):
    path = write(two_objects())
    found = [detection(1, LEFT), detection(1, RIGHT), detection(8, LEFT, score=1.0), detection(8, RIGHT, score=1.0)]
    report = evaluate_coco(path, found)
    assert report["ignored_images"] == 1
    assert report["segm"]["AP"] == pytest.approx(100)
    with pytest.raises(UserError, match="None of the 1 images with detections is among the 2 images"):
        evaluate_coco(path, found[2:])


def test_masks_of_another_size_are_refused(write):
    rotated = {"image_id": 1, "segmentation": rle(1, 1, 5, 5, height=50), "score": 1.0}
    with pytest.raises(UserError, match="1 masks have another size"):
        evaluate_coco(write(two_objects()), [rotated])


def test_truth_with_boxes_alone(write):
    annotations = [truth_annotation(1, 1, 1, LEFT), truth_annotation(2, 1, 1, RIGHT, segmentation=[])]
    path = write(annotations)
    with pytest.raises(UserError, match=r"1 annotations .* boxes but no masks"):
        evaluate_coco(path, [detection(1, LEFT)])
    assert evaluate_coco(path, [detection(1, LEFT)], ("bbox",))["bbox"]["AR100"] == pytest.approx(50)


def test_evaluation_prints_nothing(write, capsys):
    evaluate_coco(write(two_objects()), [detection(1, LEFT)])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "Cannot read"),
        ("{", "is not JSON"),
        ("[]", "lacks images"),
        ('{"images": [], "annotations": [], "categories": []}', "has no images"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1}]}', "lack id, height or width"),
    ],
)
def test_files_that_are_no_ground_truth(tmp_path, content, message):
    path = tmp_path / "truth.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        evaluate_coco(path, [])


def images_table(names):
    defaults = {"status": "ok", "width": SIZE, "height": SIZE, "exif_orientation": 1, "resized_width": SIZE}
    defaults |= {"resized_height": SIZE, "n_masks": 0, "first_mask": 0}
    rows = [{"image_id": i, "file_name": name, **defaults} for i, name in names.items()]
    return pa.Table.from_pylist(rows, schema=IMAGES_SCHEMA)


def masks_table(rows):
    fixed = {"height": SIZE, "width": SIZE, "score_raw": 1.0, "seed_scale": 0, "seed_y": 0, "seed_x": 0}
    rows = [
        {
            "image_id": image_id,
            "rank": 0,
            "counts": rle(*place)["counts"].encode(),
            "bbox": [place[1], place[0], place[3], place[2]],
            "area": place[2] * place[3],
            "score": score,
            "source": "saliency",
            **fixed,
        }
        for image_id, place, score in rows
    ]
    return pa.Table.from_pylist(rows, schema=MASKS_SCHEMA)


def test_data_set_is_evaluated_by_file_name(write):
    path = write(two_objects())
    ids = match_image_ids([images_table({901: "000000000001.jpg"}), images_table({1: "other.jpg"})], path)
    assert ids == {901: 1}
    tables = [masks_table([(901, LEFT, 0.9), (1, LEFT, 1.0)]), masks_table([(901, RIGHT, 0.8)])]
    found = detections_from_dataset(tables, ids)
    assert len(found) == 2
    assert evaluate_coco(path, found)["segm"]["AP"] == pytest.approx(100)
    assert [d["image_id"] for d in detections_from_dataset(tables)] == [901, 1, 901]


def test_paths_match_before_base_names(write):
    path = write([], images=(1, 2, 3), names={1: "a/x.jpg", 2: "b/x.jpg", 3: "train/y.jpg"})
    assert match_image_ids([images_table({10: "b/x.jpg", 11: "a/x.jpg", 12: "y.jpg"})], path) == {10: 2, 11: 1, 12: 3}


@pytest.mark.parametrize("names", [{10: "p/y.jpg", 11: "q/y.jpg"}, {10: "x.jpg"}])
def test_ambiguous_base_names_are_refused(write, names):
    path = write([], images=(1, 2, 3), names={1: "a/x.jpg", 2: "b/x.jpg", 3: "train/y.jpg"})
    with pytest.raises(UserError, match="stand for several images"):
        match_image_ids([images_table(names)], path)


def test_no_common_file_name(write):
    with pytest.raises(UserError, match="None of the 1 images of the data set"):
        match_image_ids([images_table({1: "z.jpg"})], write([]))


@pytest.mark.parametrize("class_agnostic", [True, False])
def test_the_fast_judge_says_what_pycocotools_says(write, class_agnostic):
    """On crowds, ties of scores, empty images, more than 100 detections of an image, and masks of all sizes."""
    fast = fastest_judge()
    if fast is PYCOCOTOOLS:
        pytest.skip("faster-coco-eval is not installed: it comes with the extra train")
    rng = np.random.default_rng(3)

    def place():
        y, x = rng.integers(0, SIZE - 5, 2)
        return int(y), int(x), int(rng.integers(2, SIZE - y)), int(rng.integers(2, SIZE - x))

    places = [place() for _ in range(30)]
    truth = [
        truth_annotation(n + 1, int(rng.integers(1, 5)), int(rng.choice([1, 3])), one, iscrowd=int(rng.random() < 0.15))
        for n, one in enumerate(places)
    ]
    found = [
        detection(one["image_id"], place() if rng.random() < 0.4 else where, round(float(rng.random()), 1))
        for one, where in zip(truth, places, strict=True)
        for _ in range(3)
    ]
    found += [detection(1, place(), round(float(rng.random()), 2)) for _ in range(130)]
    found = [{**one, "category_id": int(rng.choice([1, 3]))} for one in found]
    path = write(truth, images=(1, 2, 3, 4, 5, 6))
    for chosen in (None, [1, 3, 6]):
        options = {"class_agnostic": class_agnostic, "image_ids": chosen}
        slow = evaluate_coco(path, found, judge=PYCOCOTOOLS, **options)
        quick = evaluate_coco(path, found, judge=fast, **options)
        for kind in ("segm", "bbox"):
            assert slow[kind]["AP"] > 0
            assert quick[kind] == pytest.approx(slow[kind], abs=1e-9)
