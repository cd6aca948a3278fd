"""A detector on photographs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...models.detector import Detector, Limits
from ...schemas.errors import UserError
from ...schemas.load import parse_settings
from ...schemas.records import ImageRef
from ...schemas.training.sections import DataConfig, SupervisedConfig
from ...stages.device import DTYPES, resolve_precision
from ...stages.instances.results import Instances, encode_found
from ...stages.instances.samples import Batch, Sample, SampleError, collate, load_pixels, make_sample, padded_size

BATCH = 4  # images at once
WAITING = 32  # decoded images that wait for others of their size, at most


@dataclass(frozen=True, slots=True)
class Conditions:
    """What may differ from training when a model is used: None is as it was trained.

    Sides in pixels; `threshold` is the probability above which a pixel is in a mask; `most` are the instances of an
    image that count.
    """

    short_side: int | None = None
    long_side: int | None = None
    threshold: float | None = None
    most: int | None = None

    def of(self, config: SupervisedConfig) -> SupervisedConfig:
        """The configuration with these. Raises UserError for sides that are out of bounds or out of order."""
        sides = {"short_side": self.short_side, "long_side": self.long_side}
        given = {name: value for name, value in sides.items() if value is not None}
        short = given.get("short_side", config.data.short_side)
        long = given.get("long_side", config.data.long_side)
        if short > long:
            raise UserError(f"The short side of {short} pixels is above the long side of {long}: give --long-side too.")
        data = {**config.data.model_dump(), **given, "short_sides": (), "jitter": None} if given else {}
        use = {"threshold": self.threshold, "max_detections": self.most}
        trainer = {name: value for name, value in use.items() if value is not None}
        return config.model_copy(
            update={
                "data": parse_settings(DataConfig, data) if given else config.data,
                "trainer": config.trainer.model_copy(update=trainer),
            }
        )


AS_TRAINED = Conditions()


def find_in(
    model: Detector,
    config: SupervisedConfig,
    refs: Sequence[ImageRef],
    device: torch.device,
    *,
    min_score: float = 0.0,
    skipped: Callable[[str], None] = lambda _: None,
) -> Iterator[tuple[ImageRef, Instances | None]]:
    """The objects in each photograph; None for one that cannot be used, which `skipped` is told of.

    Photographs come as their batches are done. What is found in one does not depend on the others.
    """
    for batch, usable in batches_of(refs, config, model.multiple, skipped):
        if batch is not None:
            limits = Limits(config.trainer.max_detections or model.most, min_score)
            with arithmetic(config, device):
                found = model.find(normal_images(model, batch, device), batch.resized, limits)
            padded = (batch.images.shape[2], batch.images.shape[3])
        for place, ref in enumerate(usable):
            if batch is None:
                yield ref, None
                continue
            resized, stored = batch.resized[place], batch.stored[place]
            yield (
                ref,
                encode_found(
                    found[place], padded=padded, resized=resized, stored=stored, threshold=config.trainer.threshold
                ),
            )


def normal_images(model: Detector, batch: Batch, device: torch.device) -> Tensor:
    """The images of a batch as the backbone takes them."""
    mean = torch.tensor(model.backbone.mean, device=device).view(1, 3, 1, 1)
    std = torch.tensor(model.backbone.std, device=device).view(1, 3, 1, 1)
    return (batch.images.to(device).float() - mean) / std


@contextmanager
def arithmetic(config: SupervisedConfig, device: torch.device) -> Iterator[None]:
    """Inference in the run's precision."""
    dtype = DTYPES[resolve_precision(config.trainer.precision, device)]
    with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        yield


def batches_of(
    refs: Sequence[ImageRef], config: SupervisedConfig, multiple: int, skipped: Callable[[str], None]
) -> Iterator[tuple[Batch | None, list[ImageRef]]]:
    """Photographs BATCH at a time; those that cannot be used come alone and without a batch.

    A batch holds images that are padded to the same size: what is found in one never depends on its company.
    """
    size = (config.data.short_side, config.data.long_side)
    waiting: dict[tuple[int, int], list[tuple[ImageRef, Sample]]] = {}
    for ref in refs:
        try:
            pixels, stored = load_pixels(ref, size, config.data.max_pixels, keep_ratio=config.data.keep_ratio)
        except SampleError as trouble:
            skipped(str(trouble))
            yield None, [ref]
            continue
        about = {"image_id": ref.image_id, "file_name": ref.file_name, "stored": stored}
        sample = make_sample(pixels, np.zeros((0, *pixels.shape[:2]), np.uint8), [], about)
        padded = padded_size(pixels.shape[0], pixels.shape[1], multiple)
        waiting.setdefault(padded, []).append((ref, sample))
        if len(waiting[padded]) == BATCH or sum(map(len, waiting.values())) == WAITING:
            yield _batch(waiting.pop(max(waiting, key=lambda one: len(waiting[one]))), multiple)
    for held in waiting.values():
        yield _batch(held, multiple)


def _batch(held: list[tuple[ImageRef, Sample]], multiple: int) -> tuple[Batch, list[ImageRef]]:
    return collate([sample for _, sample in held], multiple), [ref for ref, _ in held]
