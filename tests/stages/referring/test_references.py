import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.stages.referring.references import References

SQUARE = [[2, 2, 6, 2, 6, 6, 2, 6]]
COCO = {
    "images": [{"id": 7, "file_name": "a.jpg", "height": 10, "width": 12}],
    "annotations": [
        {"id": 70, "image_id": 7, "category_id": 1, "segmentation": SQUARE, "bbox": [2, 2, 4, 4]},
        {"id": 71, "image_id": 7, "category_id": 1, "segmentation": {"size": [10, 12], "counts": [0, 10, 110]}},
    ],
    "categories": [{"id": 1, "name": "thing"}],
}
REFS: list[dict[str, Any]] = [
    {
        "ref_id": 1,
        "image_id": 7,
        "ann_id": 70,
        "category_id": 1,
        "split": "train",
        "file_name": "COCO_train2014_000000000007_70.jpg",
        "sent_ids": [1, 2],
        "sentences": [
            {"sent_id": 1, "raw": "The square!", "sent": "the square", "tokens": ["the", "square"]},
            {"sent_id": 2, "raw": "left", "sent": "left", "tokens": ["left"]},
        ],
    },
    {"ref_id": 2, "image_id": 7, "ann_id": [70, 71], "split": "val", "sentences": [{"sent": "both", "raw": "both"}]},
    {"ref_id": 3, "image_id": 7, "ann_id": [-1], "no_target": True, "split": "val", "sentences": [{"sent": "a dog"}]},
    {"ref_id": 4, "image_id": 99, "ann_id": 70, "split": "val", "sentences": [{"sent": "gone"}]},
    {"ref_id": 5, "image_id": 7, "ann_id": 1234, "split": "val", "sentences": [{"sent": "gone"}]},
    {"ref_id": 6, "image_id": 7, "ann_id": 70, "split": "val", "sentences": [{"sent": "  "}]},
]


def write(folder: Path, name: str, protocol: int = 2) -> Path:
    (folder / "instances.json").write_text(json.dumps(COCO))
    path = folder / name
    if name.endswith(".p"):
        path.write_bytes(pickle.dumps(REFS, protocol=protocol))
    elif name == "all.json":
        path.write_text(json.dumps({**COCO, "refs": REFS}))
    else:
        path.write_text(json.dumps(REFS))
    return path


@pytest.mark.parametrize("name", ["refs(unc).p", "grefs(unc).json", "all.json"])
def test_reads_refer_grefcoco_and_one_file(tmp_path: Path, name: str) -> None:
    found = References(str(write(tmp_path, name)), "photos")
    assert len(found) == 3
    assert found.splits == ["train", "val"]
    assert found.dropped == {
        "of an image that the file lacks": 1,
        "of an annotation that the file lacks": 1,
        "without words": 1,
    }
    one, both, none = (found.pair(i) for i in range(3))
    assert one.texts == ["the square", "left"]
    assert one.ref.uri == "photos/a.jpg"
    assert one.mask(10, 12).sum() == 16
    assert both.mask(10, 12).sum() > 16
    assert both.mask(10, 12)[:, 0].all()
    assert not none.mask(10, 12).any()
    assert list(found.texts()) == ["the square", "left", "both", "a dog"]
    assert len(References(str(tmp_path / name), "photos", "val")) == 2


def test_bad_files_say_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "refs.json"
    for text, words in (
        ("{", "JSON"),
        ("3", "no references"),
        ("[]", "instances.json"),
        ('{"refs": []}', "images"),
        (json.dumps({**COCO, "refs": []}), "empty"),
        (json.dumps({**COCO, "refs": REFS[3:]}), "1 of an image that the file lacks"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=words):
            References(str(path), "photos")
    path = write(tmp_path, "all.json")
    with pytest.raises(UserError, match="train, val"):
        References(str(path), "photos", "test")
