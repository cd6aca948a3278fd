"""The saliency producer: features, similarity maps, NMS on the device; encoding beside it."""

from ....schemas.labels.saliency import Config
from ....schemas.records import MaskSet
from ...decode import DecodedImage
from ...features import load_features
from ..contract import Admit, PixelBatch
from ..featured import FeatureProducer, LoadedProducer
from .assemble import encode_proposals, padded_shape, pinned
from .proposals import Proposals, propose


class SaliencyProducer(FeatureProducer[Config, Proposals]):
    """See `contract.Producer`."""

    def find(self, batch: PixelBatch) -> Proposals:
        """Proposals, on their way to host memory."""
        features_BDHW = self._features(self._features.upload(batch.pixels))
        return pinned(propose(features_BDHW, self._config, bf16_valued=self._features.bf16_valued))

    def finite(self, found: Proposals, i: int) -> bool:
        """See `FeatureProducer`."""
        return bool(found.finite[i])

    def masks(self, found: Proposals, i: int, image: DecodedImage) -> MaskSet | None:
        """See `FeatureProducer`."""
        return encode_proposals(found, i, image, self._config)


class LoadedSaliency(LoadedProducer[Config]):
    """See `contract.Loaded`."""

    def admission(self, config: Config) -> Admit:
        """See `contract.Loaded`; images are padded as configured."""
        admit = self.admit(config.features.level)
        return lambda image: padded_shape(admit(image), config.saliency.pad_to)


def load_saliency(config: Config) -> LoadedSaliency:
    """The configured backbone, its weights fetched and checked."""
    return LoadedSaliency(load_features(config.features), SaliencyProducer)
