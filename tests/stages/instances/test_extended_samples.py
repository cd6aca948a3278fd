"""Panoptic pictures and mattes as samples: what is empty is taken, what does not fit costs itself."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from corpus import encode, scene
from saliency_prompt.pipeline.sources import open_source
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.stages.instances.matte_samples import MatteImages, matting_targets
from saliency_prompt.stages.instances.panoptic_samples import PanopticImages, panoptic_targets
from saliency_prompt.stages.instances.samples import SampleError, collate
from saliency_prompt.stages.panoptic import encode_png

SIZE = (32, 64)


def write_photographs(folder: Path, count: int) -> None:
    folder.mkdir()
    for i in range(count):
        (folder / f"{i}.png").write_bytes(encode(scene(i, 64, 96)[0], "PNG"))


def write_pictures(folder: Path, pictures: list[np.ndarray]) -> PanopticImages:
    """Segment 9 is ground, 0 void, all others things."""
    write_photographs(folder / "photos", len(pictures))
    (folder / "p").mkdir()
    annotations = []
    for i, ids in enumerate(pictures):
        (folder / "p" / f"{i}.png").write_bytes(encode_png(ids))
        numbers = sorted(set(np.unique(ids).tolist()) - {0})
        infos = [{"id": number, "category_id": 7 if number == 9 else 1} for number in numbers]
        annotations.append({"image_id": i, "file_name": f"{i}.png", "segments_info": infos})
    images = [{"id": i, "file_name": f"{i}.png", "height": 64, "width": 96} for i in range(len(pictures))]
    categories = [{"id": 1, "name": "dog", "isthing": 1}, {"id": 7, "name": "sky", "isthing": 0}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "p.json").write_text(json.dumps(content))
    return PanopticImages(str(folder / "photos"), str(folder / "p.json"), size=SIZE)


def test_pictures_without_things_with_nothing_and_with_3000(tmp_path: Path) -> None:
    sky, void = np.full((64, 96), 9, np.int64), np.zeros((64, 96), np.int64)
    crowd = 10 + (np.arange(64)[:, None] // 2 * 96 + np.arange(96)[None]) % 3000
    data = write_pictures(tmp_path, [sky, void, crowd])
    batch = collate([data[i] for i in range(3)])
    assert [len(masks) for masks in batch.masks[:2]] == [0, 0]
    assert len(batch.masks[2]) > 500  # the others have no pixel left at half the size
    semantic = [target.semantic for target in panoptic_targets(batch)]  # type: ignore[attr-defined]
    assert (semantic[0][:32, :48] == 1).all()
    assert (semantic[1] == 255).all()
    assert (semantic[2][:32, :48] == 0).all()


def test_a_picture_that_disagrees_is_the_only_one_lost(tmp_path: Path) -> None:
    data = write_pictures(tmp_path, [np.full((64, 96), 9, np.int64)] * 2)
    (tmp_path / "p" / "0.png").write_bytes(encode_png(np.full((64, 96), 4, np.int64)))
    with pytest.raises(SampleError, match="not list"):
        data[0]
    assert data[1][1]["labels"].shape == (0,)


def test_mattes_of_another_size_and_without_an_object(tmp_path: Path) -> None:
    write_photographs(tmp_path / "photos", 4)
    (tmp_path / "mattes" / "2").mkdir(parents=True)
    disc = cv2.circle(np.zeros((64, 96), np.uint8), (40, 30), 20, 255, -1)
    for name, alpha in {"0": disc[:32], "1": 0 * disc, "2/a": disc, "2/b": cv2.blur(disc, (9, 9))}.items():
        cv2.imwrite(str(tmp_path / "mattes" / f"{name}.png"), alpha)
    refs = list(open_source(str(tmp_path / "photos")).refs())
    data = MatteImages(refs, str(tmp_path / "mattes"), size=SIZE)
    assert [ref.file_name for ref in data.refs()] == ["0.png", "1.png", "2.png"]  # the last has no matte
    with pytest.raises(SampleError, match="96 x 64"):
        data[0]
    targets = matting_targets(collate([data[1], data[2]]))
    assert [len(one.masks) for one in targets] == [0, 2]
    assert targets[1].soft.tolist() == [False, True]  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="No photograph has a matte"):
        MatteImages(refs[3:], str(tmp_path / "mattes"), size=SIZE)
    with pytest.raises(UserError, match="folder"):
        MatteImages(refs, str(tmp_path / "none"), size=SIZE)
