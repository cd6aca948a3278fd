"""Labels of a detector: each photograph's own, whatever shares its batch."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.labels.detector import DetectorConfig
from saliency_prompt.schemas.records import ImageRecord, ImageRef
from saliency_prompt.schemas.registry import PRODUCERS, load_label_config
from saliency_prompt.schemas.section import resolve
from saliency_prompt.stages.decode import DecodedImage
from saliency_prompt.stages.device import automatic
from saliency_prompt.stages.pixels import PAD_COLOR, stack_pixels
from saliency_prompt.stages.producers.contract import PixelBatch
from saliency_prompt.stages.producers.detector import DetectorProducer, LoadedDetectorProducer
from toy_detector import ToyDetector, TrainedRun

CPU = torch.device("cpu")
REF = ImageRef(1, "a.jpg", "/a.jpg")


def image(seed: int, resized: tuple[int, int], stored: tuple[int, int]) -> DecodedImage:
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (3, 4, 3)).astype(np.float32)
    pixels = torch.from_numpy(small).permute(2, 0, 1)[None]
    smooth = F.interpolate(pixels, resized, mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
    digest = hashlib.sha256(bytes([seed])).hexdigest()
    return DecodedImage(smooth.round().byte().numpy(), stored[1], stored[0], 1, digest)


def producer(*overrides: str, detector: ToyDetector | None = None) -> DetectorProducer:
    loaded = LoadedDetectorProducer(TrainedRun(detector or ToyDetector(), "toy", "0" * 64, (64, 96)))
    config = load_label_config("detector", overrides=["detect.precision=fp32", *overrides])
    assert isinstance(config, DetectorConfig)
    return loaded.build(resolve(config, {**automatic(CPU), **loaded.facts}), CPU)


@torch.inference_mode()
def records(producer: DetectorProducer, images: list[DecodedImage]) -> list[ImageRecord]:
    (shape,) = {producer.admit(one) for one in images}
    pixels = stack_pixels([one.pixels for one in images], pin=False, shape=shape)
    work = producer.forward(PixelBatch(pixels, images, [None] * len(images)))
    work.wait()
    return [producer.record(work, i, REF, one) for i, one in enumerate(images)]


def same(one: ImageRecord, other: ImageRecord) -> bool:
    a, b = one.masks, other.masks
    assert a is not None
    assert b is not None
    return a.counts == b.counts and np.array_equal(a.score, b.score) and np.array_equal(a.bbox, b.bbox)


def test_what_is_found_in_an_image_does_not_depend_on_its_batch() -> None:
    images = [image(1, (60, 90), (120, 180)), image(2, (64, 70), (64, 70)), image(3, (50, 96), (33, 41))]
    makes = producer()
    together = records(makes, images)
    for alone, one in zip(together, images, strict=True):
        assert same(records(makes, [one])[0], alone)
        assert (alone.width, alone.height) == (one.width, one.height)
        assert (alone.resized_height, alone.resized_width) == one.pixels.shape[:2]


@pytest.mark.parametrize("boxed", [False, True])
@torch.inference_mode()
def test_masks_are_the_maps_above_the_threshold(boxed: bool) -> None:
    detector = ToyDetector(boxed=boxed)
    one = image(4, (64, 96), (128, 192))
    record = records(producer("detect.min_score=0", detector=detector), [one])[0]
    pixels = (torch.from_numpy(one.pixels).float() - torch.tensor(detector.backbone.mean)) / torch.tensor(
        detector.backbone.std
    )
    from saliency_prompt.models.detector import Limits

    found = detector.find(pixels.permute(2, 0, 1)[None], [(64, 96)], Limits())[0]
    assert record.masks is not None
    assert len(record.masks) >= 2
    labels = record.masks.extra["label"]
    for place, label in enumerate(labels):
        index = found.labels.tolist().index(label)
        soft = found.maps[index][None, None]
        if boxed:
            whole = F.interpolate(soft, (64, 96), mode="bilinear", align_corners=False)
            soft = F.pad(whole, (48, 48, 32, 32))[0, 0]
        else:
            whole = F.interpolate(soft, (64, 96), mode="bilinear", align_corners=False)
            soft = F.interpolate(whole, (128, 192), mode="bilinear", align_corners=False)[0, 0]
        mask = coco_mask.decode({"size": [128, 192], "counts": record.masks.counts[place]}).astype(bool)
        assert (mask != (soft.numpy() > 0.5)).mean() < 0.003  # a box fades at its border
        assert record.masks.score[place] == pytest.approx(found.scores[index].item())
    assert record.masks.vectors["query"].dtype == np.float16
    assert set(record.masks.extra) == set(PRODUCERS["detector"].columns)
    assert (np.diff(record.masks.score) <= 0).all()


def test_limits_and_switches() -> None:
    one = image(5, (64, 96), (64, 96))
    all_of_them = records(producer("detect.min_score=0"), [one])[0].masks
    assert all_of_them is not None
    best = records(producer("detect.min_score=0", "detect.max_masks=1", "detect.vectors=false"), [one])[0].masks
    assert best is not None
    assert best.counts == all_of_them.counts[:1]
    assert best.vectors == {}
    none = records(producer("detect.min_area=100000"), [one])[0]
    assert (none.status, none.masks) == ("empty", None)
    assert records(producer("detect.min_score=1"), [one])[0].status == "empty"


def test_a_mask_is_stored_under_its_best_label_alone_unless_all_are_wanted() -> None:
    class Ambiguous(ToyDetector):
        def _found(self, maps, size, limits):
            found = super()._found(maps, size, limits)
            return replace(found, sources=torch.zeros_like(found.sources), maps=found.maps[:1].expand_as(found.maps))

    one = image(5, (64, 96), (64, 96))
    every = records(producer("detect.min_score=0", "detect.one_label=false", detector=Ambiguous()), [one])[0].masks
    best = records(producer("detect.min_score=0", detector=Ambiguous()), [one])[0].masks
    assert every is not None
    assert best is not None
    assert (len(every), len(best)) == (3, 1)
    assert len(set(every.counts)) == 1
    assert best.score[0] == every.score.max()


def test_an_image_whose_scores_are_no_numbers_is_set_aside_alone() -> None:
    class Broken(ToyDetector):
        def _found(self, maps, size, limits):
            found = super()._found(maps, size, limits)
            if size == (64, 70):
                found.scores.fill_(float("nan"))
            return found

    fine, bad = records(producer(detector=Broken()), [image(1, (60, 90), (60, 90)), image(2, (64, 70), (64, 70))])
    assert fine.status == "ok"
    assert (bad.status, bad.reason) == ("quarantined", "non_finite_features")
    assert bad.sha256 == hashlib.sha256(bytes([2])).hexdigest()


def test_size_and_arithmetic_are_those_of_training_unless_said() -> None:
    assert (producer().decode.short_side, producer().decode.long_side) == (64, 96)
    said = producer("decode.short_side=48", "decode.long_side=50")
    assert (said.decode.short_side, said.decode.long_side) == (48, 50)
    with pytest.raises(UserError, match=r"decode.short_side = 200 is above"):
        producer("decode.short_side=200")


def test_padding_has_the_colour_that_normalises_to_zero() -> None:
    pixels = stack_pixels([np.zeros((3, 5, 3), np.uint8)], pin=False, shape=(4, 8))
    assert pixels.shape == (1, 4, 8, 3)
    assert pixels[0, :3, :5].sum() == 0
    assert (pixels[0, 3] == torch.tensor(PAD_COLOR, dtype=torch.uint8)).all()
    assert (pixels[0, :, 5:] == torch.tensor(PAD_COLOR, dtype=torch.uint8)).all()


def test_a_detector_without_a_run_is_asked_for() -> None:
    from saliency_prompt.stages.producers.registry import LOADERS

    with pytest.raises(UserError, match="--model"):
        LOADERS["detector"](DetectorConfig(), lambda: None)
