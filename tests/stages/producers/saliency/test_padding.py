"""Images that are padded to multiples of 32, as the authors' later code does, and masks that know nothing of it."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.labels.saliency import Config
from saliency_prompt.schemas.load import load_config
from saliency_prompt.schemas.records import ImageRef
from saliency_prompt.stages.decode import DecodedImage
from saliency_prompt.stages.pixels import stack_pixels
from saliency_prompt.stages.producers.contract import PixelBatch
from saliency_prompt.stages.producers.saliency.assemble import padded_shape
from saliency_prompt.stages.producers.saliency.producer import load_saliency

SMALL = ["features.weights=lab-color", "features.precision=fp32", "filters.min_score=0", "filters.min_center_y=null"]


def photograph(height: int, width: int) -> DecodedImage:
    """A red box on green, up to the right and lower edges."""
    pixels = np.full((height, width, 3), (40, 160, 40), np.uint8)
    pixels[height // 2 :, width // 2 :] = (220, 30, 30)
    return DecodedImage(pixels, width, height, 1, "0" * 64)


def label(image: DecodedImage, config: Config) -> np.ndarray:
    """The best mask."""
    producer = load_saliency(config).build(config, torch.device("cpu"))
    shape = producer.admit(image)
    batch = PixelBatch(stack_pixels([image.pixels], pin=False, shape=shape), [image], [None])
    record = producer.record(producer.forward(batch), 0, ImageRef(1, "a.png", "a.png"), image)
    assert record.masks is not None
    assert (record.resized_height, record.resized_width) == image.pixels.shape[:2]
    return record.masks.bbox


def test_the_preset_pads_what_it_stretches() -> None:
    config = load_config("uplvp")
    assert config.saliency.pad_to == 32
    assert padded_shape((config.decode.short_side, config.decode.long_side), 32) == (800, 1344)
    assert load_config().saliency.pad_to == 1


def test_masks_end_where_the_photograph_does() -> None:
    image = photograph(100, 150)
    plain, padded = (load_config(overrides=[*SMALL, f"saliency.pad_to={n}"]) for n in (1, 64))
    assert load_saliency(padded).admission(padded)(image) == (128, 192)
    for config in (plain, padded):
        right, bottom = (label(image, config)[:, :2] + label(image, config)[:, 2:]).max(0)
        assert (right, bottom) == (150, 100)
    boxes = label(image, padded)
    wanted = np.array([75, 50, 75, 50])
    assert np.abs(boxes - wanted).max(1).min() < 16  # half a cell


def test_padded_images_are_not_refined() -> None:
    with pytest.raises((UserError, ValidationError), match="pad_to"):
        load_config(overrides=["saliency.pad_to=32", "refine.radius=8"])
