"""The saliency producer: features, similarity maps, NMS on the device; encoding beside it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ....schemas.errors import UserError
from ....schemas.labels.saliency import Config
from ....schemas.records import ImageRecord, ImageRef
from ...backbone import LoadedBackbone, load_backbone
from ...decode import DecodedImage
from ...features import FeatureExtractor
from ...pixels import Shape
from ...read import BadImage
from ..contract import PixelBatch
from .assemble import PinnedProposals, image_record
from .proposals import propose


@dataclass(frozen=True, slots=True, eq=False)
class LoadedSaliency:
    """See `contract.Loaded`."""

    backbone: LoadedBackbone

    @property
    def weights(self) -> str:
        """See `contract.Loaded`."""
        return self.backbone.weights

    @property
    def weights_sha256(self) -> str:
        """See `contract.Loaded`."""
        return self.backbone.weights_sha256

    @property
    def facts(self) -> dict[str, Any]:
        """See `contract.Loaded`."""
        precision = self.backbone.module.precision
        return {"arch": self.backbone.arch} | ({} if precision is None else {"precision": precision})

    def admission(self, config: Config) -> Callable[[DecodedImage], Shape]:
        """See `contract.Loaded`."""
        stride = self.backbone.module.strides[config.features.level]

        def admit(image: DecodedImage) -> Shape:
            height, width = image.pixels.shape[:2]
            if min(height, width) <= stride:
                trouble = f"resized to {width}x{height}, it has fewer than 2 feature cells on a side"
                raise BadImage("too_small", trouble)
            return height, width

        return admit

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
    features = config.features
    return LoadedSaliency(
        load_backbone(features.weights, arch=features.arch, stride_in_1x1=features.stride_in_1x1, seed=features.seed)
    )


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
