"""The detector producer: a trained model finds instances, and they become labels.

Shape legend: B images, n found instances, h w cells of a map, D channels of a vector.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from ...models.detector import Detector, Found, Limits, Size
from ...schemas.errors import UserError
from ...schemas.labels.base import DecodeConfig
from ...schemas.labels.detector import DetectorConfig
from ...schemas.records import ImageRecord, ImageRef, MaskSet
from ..decode import DecodedImage, labelled
from ..device import DTYPES
from ..paste import Frame, paste
from ..pixels import Arriving, PixelInput, Shape, arrival, to_host
from ..read import BadImage, quarantined
from .contract import Admit, PixelBatch

LARGEST = 65504.0  # of fp16


class TrainedDetector(Protocol):
    """A detector with the weights of a training run, on the CPU.

    `sha256` is the digest of all that decides what it finds: its weights and how it was built. `name` is what the run
    is called, and `size` the short and long side it was trained at.
    """

    @property
    def module(self) -> Detector: ...  # noqa: D102

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def sha256(self) -> str: ...  # noqa: D102

    @property
    def size(self) -> tuple[int, int]: ...  # noqa: D102


@dataclass(frozen=True, slots=True, eq=False)
class LoadedDetectorProducer:
    """See `contract.Loaded`."""

    trained: TrainedDetector

    @property
    def weights(self) -> str:
        """See `contract.Loaded`."""
        return self.trained.name

    @property
    def weights_sha256(self) -> str:
        """See `contract.Loaded`."""
        return self.trained.sha256

    @property
    def facts(self) -> dict[str, Any]:
        """See `contract.Loaded`."""
        short, long = self.trained.size
        precision = self.trained.module.backbone.precision
        return {"short_side": short, "long_side": long} | ({} if precision is None else {"precision": precision})

    def admission(self, config: DetectorConfig) -> Admit:
        """See `contract.Loaded`: every image, padded to what the model takes."""
        del config
        multiple = self.trained.module.multiple

        def admit(image: DecodedImage) -> Shape:
            height, width = image.pixels.shape[:2]
            return -(-height // multiple) * multiple, -(-width // multiple) * multiple

        return admit

    def build(self, config: DetectorConfig, device: torch.device) -> "DetectorProducer":
        """See `contract.Loaded`."""
        if config.decode.long_side < config.decode.short_side:
            raise UserError(
                f"decode.short_side = {config.decode.short_side} is above decode.long_side = "
                f"{config.decode.long_side}, which is that of training unless set: set both."
            )
        return DetectorProducer(config, self.trained.module, self.admission(config), device)


@dataclass(frozen=True, slots=True, eq=False)
class FoundInBatch:
    """Instances of each image, in a batch padded to one size."""

    images: list[Found]
    padded: Size


class DetectorProducer:
    """See `contract.Producer`. What is found in an image depends on it alone, and on the size it is padded to."""

    memory_key = "detect.batch_size"

    def __init__(self, config: DetectorConfig, module: Detector, admit: Admit, device: torch.device) -> None:
        assert config.detect.precision != "auto"
        self.device = device
        self.batch_size = config.detect.batch_size
        self.decode: DecodeConfig = config.decode
        self.admit = admit
        self._config = config.detect
        self._module = module.to(device).eval()
        self._input = PixelInput(module.backbone.mean, module.backbone.std, device, torch.float32)
        self._dtype = DTYPES[config.detect.precision]
        self._limits = Limits(most=config.detect.max_masks, min_score=config.detect.min_score)

    def forward(self, batch: PixelBatch) -> Arriving[FoundInBatch]:
        """See `contract.Producer`."""
        images_B3HW = self._input.normalise(self._input.upload(batch.pixels))
        sizes = [(image.pixels.shape[0], image.pixels.shape[1]) for image in batch.images]
        with torch.autocast(self.device.type, self._dtype, enabled=self._dtype != torch.float32):
            found = self._module.find(images_B3HW, sizes, self._limits)
        height, width = batch.pixels.shape[1:3]
        return Arriving(FoundInBatch([_to_host(one) for one in found], (height, width)), arrival(self.device))

    def record(self, work: Arriving[FoundInBatch], i: int, ref: ImageRef, image: DecodedImage) -> ImageRecord:
        """See `contract.Producer`."""
        found = work.found.images[i]
        scores_n = found.scores.numpy()
        if not np.isfinite(scores_n).all():
            bad = BadImage("non_finite_features", "the model gave NaN or infinite scores for this image")
            return quarantined(ref, bad, image.sha256)
        chosen = np.arange(len(found))
        if self._config.one_label:  # best first: the first of each source
            chosen = np.sort(np.unique(found.sources.numpy(), return_index=True)[1])
        height, width = image.pixels.shape[:2]
        pasted = paste(
            found.maps.numpy()[chosen],
            None if found.boxes is None else found.boxes.numpy()[chosen],
            Frame(work.found.padded, (height, width), (image.height, image.width)),
            threshold=self._config.threshold,
            min_area=self._config.min_area,
        )
        kept = chosen[pasted.kept]
        narrow = np.arange(len(kept))
        if self._config.max_width < 1:
            narrow = np.flatnonzero(pasted.bbox[:, 2] < self._config.max_width * image.width)  # XYWH
        kept = kept[narrow]
        masks = None
        if len(kept):
            vectors = {}
            if found.vectors is not None and self._config.vectors:
                vectors["query"] = found.vectors.numpy()[kept].clip(-LARGEST, LARGEST).astype(np.float16)
            masks = MaskSet(
                counts=[pasted.counts[one] for one in narrow],
                bbox=pasted.bbox[narrow],
                area=pasted.area[narrow],
                score=scores_n[kept],
                vectors=vectors,
                source="detector",
                extra={"label": found.labels.numpy()[kept], "maskness": pasted.maskness[narrow]},
            )
        return labelled(ref, image, masks)

    def close(self) -> None:
        """See `contract.Producer`."""


def _to_host(found: Found) -> Found:
    """Start the copies."""
    return Found(
        maps=to_host(found.maps.float()),
        scores=to_host(found.scores.float()),
        labels=to_host(found.labels.int()),
        sources=to_host(found.sources),
        boxes=None if found.boxes is None else to_host(found.boxes.float()),
        vectors=None if found.vectors is None else to_host(found.vectors.float()),
    )
