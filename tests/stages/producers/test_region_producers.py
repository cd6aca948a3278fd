"""The merge and ncut producers on a photograph of two things."""

from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.records import ImageRecord, ImageRef
from saliency_prompt.schemas.registry import PRODUCERS, load_label_config
from saliency_prompt.schemas.section import resolve
from saliency_prompt.stages.decode import DecodedImage
from saliency_prompt.stages.device import automatic
from saliency_prompt.stages.producers.contract import PixelBatch, Prior
from saliency_prompt.stages.producers.registry import LOADERS
from saliency_prompt.stages.read import BadImage

CPU = torch.device("cpu")
REF = ImageRef(7, "a.jpg", "a.jpg")


def photograph() -> DecodedImage:
    """96 x 128 pixels, of a file of 192 x 256."""
    pixels = np.full((96, 128, 3), (60, 140, 60), np.uint8)
    pixels[24:64, 16:56] = (220, 30, 30)
    pixels[40:80, 80:112] = (30, 30, 230)
    pixels += np.random.default_rng(0).integers(0, 6, pixels.shape).astype(np.uint8)
    return DecodedImage(pixels=pixels, height=192, width=256, exif_orientation=1, sha256="0" * 64)


def build(name: str, *overrides: str) -> Any:
    small = ["features.weights=lab-color", "features.level=c3", "decode.align=1"]
    config = load_label_config(name, None, None, [*small, *overrides])
    loaded = LOADERS[name](config, lambda: None)
    return loaded.build(resolve(config, {**automatic(CPU), **loaded.facts}), CPU)


def label(producer: Any, prior: Prior | None = None, image: DecodedImage | None = None) -> ImageRecord:
    image = image or photograph()
    with torch.inference_mode():
        work = producer.forward(PixelBatch(torch.from_numpy(image.pixels)[None], [image], [prior]))
    work.wait()
    return producer.record(work, 0, REF, image)


def overlaps(record: ImageRecord) -> list[float]:
    """The best IoU of a mask with either thing."""
    assert record.masks is not None
    found = [coco_mask.decode({"size": [192, 256], "counts": counts}) for counts in record.masks.counts]
    best = []
    for y, x, bottom, right in ((48, 32, 128, 112), (80, 160, 160, 224)):
        thing = np.zeros((192, 256), bool)
        thing[y:bottom, x:right] = True
        best.append(max((thing & (m > 0)).sum() / (thing | (m > 0)).sum() for m in found))
    return best


CHOICES = [
    ("merge", []),
    ("merge", ["refine.radius=4"]),
    ("merge", ["merge.scales=[0.5,1.0]", "merge.side=8"]),
    ("ncut", ["cut.kind=one", "cut.max_cells=100"]),
]


@pytest.mark.parametrize(("name", "overrides"), CHOICES)
def test_things_are_found_and_columns_are_those_promised(name: str, overrides: list[str]) -> None:
    record = label(build(name, *overrides))
    assert record.status == "ok"
    masks = record.masks
    assert masks is not None
    if name == "merge":  # cells on a border are like no other, and a cut takes them for things
        assert min(overlaps(record)) > 0.7
    assert set(masks.extra) == set(PRODUCERS[name].columns)
    assert (np.diff(masks.score) <= 0).all()
    assert masks.score.dtype == np.float32
    assert ((masks.score >= 0) & (masks.score <= 1)).all()
    rles = [{"size": [192, 256], "counts": counts} for counts in masks.counts]
    np.testing.assert_array_equal(masks.area, coco_mask.area(rles))
    np.testing.assert_array_equal(masks.bbox, coco_mask.toBbox(rles))
    for vectors in masks.vectors.values():
        np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float32), axis=1), 1, atol=2e-3)


@pytest.mark.parametrize(("name", "overrides"), [*CHOICES, ("ncut", ["cut.rounds=2"])])
def test_a_flat_photograph_and_broken_features_cost_themselves_alone(name: str, overrides: list[str]) -> None:
    producer = build(name, *overrides)
    flat = DecodedImage(
        pixels=np.full((96, 128, 3), 90, np.uint8), height=96, width=128, exif_orientation=1, sha256="0" * 64
    )
    assert label(producer, image=flat).status == "empty"
    forward = producer._features.forward
    producer._features.forward = lambda images: forward(images) * torch.nan
    record = label(producer)
    assert (record.status, record.reason) == ("quarantined", "non_finite_features")


@pytest.mark.parametrize("name", ["merge", "ncut"])
def test_less_than_two_cells_are_too_small(name: str) -> None:
    tiny = DecodedImage(pixels=np.zeros((8, 60, 3), np.uint8), height=8, width=60, exif_orientation=1, sha256="0" * 64)
    with pytest.raises(BadImage, match="2 feature cells"):
        build(name).admit(tiny)


def test_fill_keeps_the_masks_of_before_as_they_are() -> None:
    drawn = np.zeros((192, 256), np.uint8, order="F")
    drawn[49:129, 33:111] = 1  # no superpixel is like this
    counts = coco_mask.encode(drawn)["counts"]
    prior = Prior([counts], np.array([[33, 49, 78, 80]], np.float32), np.array([0.9], np.float32))
    masks = label(build("merge", "merge.fill=0.5"), prior).masks
    plain = label(build("merge"), prior).masks
    assert masks is not None
    assert plain is not None
    assert counts not in plain.counts
    place = list(masks.counts).index(counts)
    assert masks.score[place] == np.float32(0.9)
    assert masks.extra["hierarchy"][place] == -1
    assert masks.area[place] == drawn.sum()
    assert min(overlaps(label(build("merge", "merge.fill=0.5"), prior))) > 0.7


def test_bounds_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(UserError, match=r"merge\.max_area"):
        build("merge", "merge.min_area=0.5", "merge.max_area=0.4")


def test_a_level_that_is_not_there_is_refused() -> None:
    pytest.importorskip("timm", reason="timm is not installed (extra vit)")
    with pytest.raises(UserError, match=r"features\.level=c5"):
        build("merge", "features.weights=random", "features.arch=timm:test_vit")


@pytest.mark.parametrize(("name", "overrides"), [("merge", []), ("ncut", ["cut.kind=one", "cut.max_cells=100"])])
def test_the_largest_features_of_fp16_do_not_overflow(name: str, overrides: list[str]) -> None:
    producer = build(name, *overrides)
    expected = label(producer).masks
    forward = producer._features.forward

    def large(images: torch.Tensor) -> torch.Tensor:
        features = forward(images).float()
        return (features * (60000 / features.abs().max())).half()

    producer._features.forward = large
    masks = label(producer).masks
    assert masks is not None
    assert expected is not None
    assert np.isfinite(masks.score).all()
    assert abs(len(masks.counts) - len(expected.counts)) <= 2
