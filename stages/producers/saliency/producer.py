"""The saliency producer: features, similarity maps, NMS on the device; encoding beside it."""

from collections.abc import Callable

import torch

from ....schemas.errors import UserError
from ....schemas.labels.saliency import Config
from ....schemas.records import ImageRecord, ImageRef
from ...decode import DecodedImage
from ...features import FeatureExtractor, LoadedFeatures, load_features
from ...pixels import Shape
from ..contract import PixelBatch
from .assemble import PinnedProposals, image_record
from .proposals import propose


class LoadedSaliency(LoadedFeatures):
    """See `contract.Loaded`."""

    def admission(self, config: Config) -> Callable[[DecodedImage], Shape]:
        """See `contract.Loaded`."""
        return self.admit(config.features.level)

    def build(self, config: Config, device: torch.device) -> "SaliencyProducer":
        """See `contract.Loaded`."""
        multiple = self.backbone.module.multiple
        if config.decode.align % multiple:
            raise UserError(
                f"{self.backbone.arch} takes sides in multiples of {multiple}: set decode.align={multiple}."
            )
        return SaliencyProducer(
            config, FeatureExtractor(self.backbone, config.features, device), self.admission(config)
        )


def load_saliency(config: Config) -> LoadedSaliency:
    """The configured backbone, its weights fetched and checked."""
    return LoadedSaliency(load_features(config.features))


class SaliencyProducer:
    """See `contract.Producer`. Nothing in `forward` waits for the device."""

    memory_key = "features.batch_size"

    def __init__(self, config: Config, features: FeatureExtractor, admit: Callable[[DecodedImage], Shape]) -> None:
        self.device = features.device
        self.batch_size = config.features.batch_size
        self.decode = config.decode
        self.admit = admit
        self._config = config
        self._features = features

    def forward(self, batch: PixelBatch) -> PinnedProposals:
        """See `contract.Producer`."""
        features_BDHW = self._features(self._features.upload(batch.pixels))
        return PinnedProposals.copy(propose(features_BDHW, self._config, bf16_valued=self._features.bf16_valued))

    def record(self, work: PinnedProposals, i: int, ref: ImageRef, image: DecodedImage) -> ImageRecord:
        """See `contract.Producer`."""
        return image_record(ref, image, work, i, self._config)

    def close(self) -> None:
        """See `contract.Producer`."""
