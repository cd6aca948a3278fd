"""Annotations without masks, from the file to the batch."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.training.sections import DataConfig
from saliency_prompt.stages.instances.augment import Augmented
from saliency_prompt.stages.instances.labelled import CocoInstances
from saliency_prompt.stages.instances.samples import Sample, collate

HEIGHT, WIDTH = 40, 64
POLYGON = [[5, 5, 25, 5, 25, 25, 5, 25]]


def annotation(number: int, category: int, bbox: list[float], **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": 1, "category_id": category, "bbox": bbox, "area": 1, "iscrowd": 0, **more}


ANNOTATIONS = [
    annotation(1, 3, [5, 5, 20, 20], segmentation=POLYGON),
    annotation(2, 7, [30, 10, 16, 20]),
    annotation(3, 7, [50.4, 2.2, 30.0, 9.9]),  # leaves the image
    annotation(4, 3, [8, 8, 0, 5]),  # without area
    annotation(5, 3, [9, 20, 12, -2]),
]


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 3, "name": "three"}, {"id": 7, "name": "seven"}],
        "annotations": ANNOTATIONS,
    }
    (tmp_path / "gt.json").write_text(json.dumps(content))
    return str(tmp_path), str(tmp_path / "gt.json")


def read(files: tuple[str, str], **options: Any) -> CocoInstances:
    return CocoInstances(*files, size=(HEIGHT, WIDTH), boxes_alone=True, **options)


def test_a_box_alone_is_an_object_whose_mask_is_not_to_be_learned(files: tuple[str, str]) -> None:
    _, target = read(files)[0]
    assert target["has_mask"].tolist() == [True, False, False]
    assert target["labels"].tolist() == [0, 1, 1]
    boxes = torch.as_tensor(target["boxes"])
    assert boxes[:2].tolist() == [[5, 5, 25, 25], [30, 10, 46, 30]]
    assert (boxes[2] - torch.tensor([50.4, 2.2, 64, 12.1])).abs().max() <= 1
    assert target["scores"].tolist() == [1, 1, 1]


def test_without_the_option_such_a_file_is_refused_with_what_to_do(files: tuple[str, str]) -> None:
    with pytest.raises(UserError, match="boxes but no masks"):
        CocoInstances(*files, size=(HEIGHT, WIDTH))


def test_masks_of_novel_classes_are_kept_but_marked(files: tuple[str, str]) -> None:
    _, all_known = read(files, masked={0, 1})[0]
    _, none_known = read(files, masked={1})[0]
    assert all_known["has_mask"].tolist() == [True, False, False]
    assert none_known["has_mask"].tolist() == [False, False, False]
    assert torch.equal(torch.as_tensor(none_known["masks"]), torch.as_tensor(all_known["masks"]))


def test_pseudo_masks_fill_in(files: tuple[str, str]) -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[10:30, 30:46] = 1
    mask[15:18, 35:40] = 0
    asked = []

    def pseudo(name: str) -> tuple[list[dict[str, Any]], list[float]]:
        asked.append(name)
        return [coco_mask.encode(mask)], [0.6]

    _, target = read(files, pseudo=pseudo)[0]
    assert asked == ["a.png"]
    assert target["has_mask"].tolist() == [True, True, False]
    assert target["scores"].tolist() == pytest.approx([1, 0.6, 1])
    assert torch.as_tensor(target["masks"])[1].sum() == 16 * 20 - 15


class FarRight:
    """The sample with its first object out of the image."""

    def __init__(self, data: CocoInstances) -> None:
        self.data = data

    def __len__(self) -> int:
        return 1

    def load(self, index: int, size: tuple[int, int]) -> Sample:
        image, target = self.data.load(index, size)
        target["masks"][0] = 0
        return image, target


def test_what_is_known_moves_with_the_objects(files: tuple[str, str]) -> None:
    config = DataConfig(flip=1.0, short_side=HEIGHT, long_side=WIDTH)
    image, target = Augmented(FarRight(read(files)), config, seed=0)[0, 0]
    assert target["has_mask"].tolist() == [False, False]
    assert torch.as_tensor(target["boxes"])[0].tolist() == [WIDTH - 46, 10, WIDTH - 30, 30]
    batch = collate([(image, target), read(files)[0]])
    assert [one.tolist() for one in batch.has_mask] == [[False, False], [True, False, False]]
