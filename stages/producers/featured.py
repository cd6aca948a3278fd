"""What producers on frozen features share: their weights, the wait for the device, and the row of an image.

One is made of a `FeatureProducer` and one line, `LoadedProducer(load_features(config.features), ItsProducer)`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch

from ...schemas.errors import UserError
from ...schemas.labels.base import DecodeConfig
from ...schemas.labels.saliency import FeaturesConfig
from ...schemas.records import ImageRecord, ImageRef, MaskSet
from ..decode import DecodedImage, labelled
from ..features import FeatureExtractor, LoadedFeatures
from ..pixels import Arriving, arrival
from ..read import BadImage, quarantined
from .contract import Admit, PixelBatch, Producer


class FeatureLabelConfig(Protocol):
    """The configuration of such a producer."""

    @property
    def features(self) -> FeaturesConfig: ...  # noqa: D102

    @property
    def decode(self) -> DecodeConfig: ...  # noqa: D102


C = TypeVar("C", bound=FeatureLabelConfig)
F = TypeVar("F")


class FeatureProducer(Generic[C, F]):
    """See `contract.Producer`. A subclass says what is found in a batch, and which masks of an image that makes."""

    memory_key: str = "features.batch_size"

    def __init__(self, config: C, features: FeatureExtractor, admit: Admit) -> None:
        self.device = features.device
        self.batch_size = config.features.batch_size
        self.decode = config.decode
        self.admit = admit
        self._config = config
        self._features = features

    def find(self, batch: PixelBatch) -> F:
        """Compute, and start the copies to host memory. Nothing here should wait for the device."""
        raise NotImplementedError

    def finite(self, found: F, i: int) -> bool:
        """Whether the features of image `i` were numbers."""
        raise NotImplementedError

    def masks(self, found: F, i: int, image: DecodedImage) -> MaskSet | None:
        """The masks of image `i`, None for none; `found` is in host memory."""
        raise NotImplementedError

    def forward(self, batch: PixelBatch) -> Arriving[F]:
        """See `contract.Producer`."""
        return Arriving(self.find(batch), arrival(self.device))

    def record(self, work: Arriving[F], i: int, ref: ImageRef, image: DecodedImage) -> ImageRecord:
        """See `contract.Producer`."""
        if not self.finite(work.found, i):
            bad = BadImage("non_finite_features", "the backbone gave NaN or infinite features for this image")
            return quarantined(ref, bad, image.sha256)
        return labelled(ref, image, self.masks(work.found, i, image))

    def close(self) -> None:
        """See `contract.Producer`."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedProducer(LoadedFeatures, Generic[C]):
    """See `contract.Loaded`: a backbone, and what is made of its features."""

    make: Callable[[C, FeatureExtractor, Admit], Producer[Any]]

    def admission(self, config: C) -> Admit:
        """See `contract.Loaded`."""
        return self.admit(config.features.level)

    def build(self, config: C, device: torch.device) -> Producer[Any]:
        """See `contract.Loaded`."""
        multiple = self.backbone.module.multiple
        if config.decode.align % multiple:
            raise UserError(
                f"{self.backbone.arch} takes sides in multiples of {multiple}: set decode.align={multiple}."
            )
        return self.make(config, FeatureExtractor(self.backbone, config.features, device), self.admission(config))
