"""Masks that come from elsewhere than the features, and the vectors of a frozen backbone for them.

What the producers `random` and `imported` share. Shape legend: B images, D channels, H W feature cells, n masks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from ..schemas.errors import UserError
from ..schemas.labels.base import DecodeConfig
from ..schemas.labels.saliency import FeaturesConfig, PromptsConfig
from ..schemas.records import Column, ImageRecord, ImageRef, MaskSet
from .backbone import LoadedBackbone
from .decode import DecodedImage, labelled
from .features import FeatureExtractor
from .pixels import Arriving, Shape, arrival, to_host
from .producers.contract import PixelBatch
from .read import BadImage, quarantined

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class GivenMasks:
    """Masks of one image, best first, at the size of the stored image, none of them empty.

    `at` [n, 2] are places (x, y) in pixels whose feature cell is the seed vector; None takes the mean under the mask.
    """

    counts: list[bytes]
    score: Floats
    at: Floats | None = None
    extra: Mapping[str, Column] = field(default_factory=dict)


Give = Callable[[ImageRef, DecodedImage], GivenMasks]  # raises BadImage


def admit_grid(backbone: LoadedBackbone, features: FeaturesConfig) -> Callable[[DecodedImage], Shape]:
    """Admits images of two feature cells a side or more, each at its own size."""
    stride = backbone.module.strides[features.level]

    def admit(image: DecodedImage) -> Shape:
        height, width = image.pixels.shape[:2]
        if min(height, width) <= stride:
            raise BadImage("too_small", f"resized to {width}x{height}, it has fewer than 2 feature cells on a side")
        return height, width

    return admit


class GivenMasksProducer:
    """See `contract.Producer`: `give` says which masks an image has, and the backbone gives their vectors."""

    memory_key = "features.batch_size"

    def __init__(
        self,
        backbone: LoadedBackbone,
        features: FeaturesConfig,
        prompts: PromptsConfig,
        decode: DecodeConfig,
        device: torch.device,
        source: str,
        give: Give,
    ) -> None:
        multiple = backbone.module.multiple
        if decode.align % multiple:
            raise UserError(f"{backbone.arch} takes sides in multiples of {multiple}: set decode.align={multiple}.")
        self._features = FeatureExtractor(backbone, features, device)
        self.device = device
        self.batch_size = features.batch_size
        self.decode = decode
        self.admit = admit_grid(backbone, features)
        self._prompts, self._source, self._give = prompts, source, give

    def forward(self, batch: PixelBatch) -> Arriving[Tensor]:
        """See `contract.Producer`."""
        if not (self._prompts.seed or self._prompts.box_mean):
            return Arriving(torch.empty(len(batch.images), 0, 1, 1), None)
        features_BDHW = self._features(self._features.upload(batch.pixels))
        return Arriving(to_host(features_BDHW.float()), arrival(self.device))

    def record(self, work: Arriving[Tensor], i: int, ref: ImageRef, image: DecodedImage) -> ImageRecord:
        """See `contract.Producer`."""
        features_DHW = work.found[i].numpy()
        try:
            if not np.isfinite(features_DHW).all():
                raise BadImage("non_finite_features", "the backbone gave NaN or infinite features for this image")
            given = self._give(ref, image)
        except BadImage as bad:
            return quarantined(ref, bad, image.sha256)
        masks = _mask_set(given, features_DHW, image, self._prompts, self._source) if given.counts else None
        return labelled(ref, image, masks)

    def close(self) -> None:
        """See `contract.Producer`."""


def _mask_set(
    given: GivenMasks, features_DHW: Floats, image: DecodedImage, prompts: PromptsConfig, source: str
) -> MaskSet:
    rles = [{"size": [image.height, image.width], "counts": counts} for counts in given.counts]
    boxes_n4 = coco_mask.toBbox(rles).astype(np.float32).reshape(-1, 4)
    vectors = {}
    if prompts.seed:
        seed_nD = (
            mean_under(rles, features_DHW)
            if given.at is None
            else cells_at(given.at / (image.width, image.height), features_DHW)
        )
        vectors["seed"] = unit_length(seed_nD).astype(np.float16)
    if prompts.box_mean:
        vectors["box_mean"] = box_means(boxes_n4, (image.height, image.width), features_DHW).astype(np.float16)
    return MaskSet(
        counts=given.counts,
        bbox=boxes_n4,
        area=coco_mask.area(rles).astype(np.int64),
        score=given.score,
        vectors=vectors,
        source=source,
        extra=dict(given.extra),
    )


def mean_under(rles: list[dict[str, Any]], features_DHW: Floats) -> Floats:
    """The mean feature under each mask [n, D]; a cell counts by the share of it that the mask covers."""
    _, height, width = features_DHW.shape
    weights = np.empty((len(rles), height * width), np.float32)
    for i, rle in enumerate(rles):  # drawn one at a time: many masks of a large photograph are gigabytes
        covered = cv2.resize(coco_mask.decode(rle).astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        weights[i] = covered.ravel()
    return _weighted(weights, features_DHW)


def box_means(boxes_n4: Floats, size: tuple[int, int], features_DHW: Floats) -> Floats:
    """The mean feature inside each box XYWH of an image of this (height, width) [n, D], cells by the share covered."""
    _, height, width = features_DHW.shape
    across = _covered(boxes_n4[:, 0], boxes_n4[:, 2], size[1], width)
    down = _covered(boxes_n4[:, 1], boxes_n4[:, 3], size[0], height)
    return _weighted((down[:, :, None] * across[:, None]).reshape(len(boxes_n4), -1), features_DHW)


def cells_at(places_n2: npt.NDArray[np.floating[Any]], features_DHW: Floats) -> Floats:
    """The features of the cells at places (x, y), fractions of the image [n, D]."""
    _, height, width = features_DHW.shape
    columns = np.clip((places_n2[:, 0] * width).astype(int), 0, width - 1)
    rows = np.clip((places_n2[:, 1] * height).astype(int), 0, height - 1)
    return np.ascontiguousarray(features_DHW[:, rows, columns].T)


def unit_length(vectors_nD: Floats) -> Floats:
    """L2-normalised vectors; a zero vector stays zero."""
    length_n1: Floats = np.linalg.norm(vectors_nD, axis=1, keepdims=True)
    return (vectors_nD / np.maximum(length_n1, 1e-12)).astype(np.float32)


def _covered(start_n: Floats, length_n: Floats, size: int, cells: int) -> Floats:
    """How much of each cell an interval covers, in cells: [n, cells]."""
    low, high = start_n[:, None] * (cells / size), (start_n + length_n)[:, None] * (cells / size)
    edges = np.arange(cells, dtype=np.float32)
    covered: Floats = np.clip(np.minimum(high, edges + 1) - np.maximum(low, edges), 0, None).astype(np.float32)
    return covered


def _weighted(weights_nK: Floats, features_DHW: Floats) -> Floats:
    total_n1 = weights_nK.sum(1, keepdims=True)
    mean: Floats = (weights_nK / np.maximum(total_n1, 1e-12)) @ features_DHW.reshape(len(features_DHW), -1).T
    return mean
