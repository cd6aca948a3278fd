"""The annotate producer: a chain of models from photographs to masks with texts (UniLSeg, section 3.3).

    unlabelled: caption of the photograph -> mask of the caption
    boxes:      box -> mask, and the crop's caption
    tags:       tags -> boxes of each -> masks of the boxes -> their union; the text is "all {tag}"
    masks:      masks that are there -> captions of their crops

Every pair is scored by how well mask and text fit; scores are stored raw, and nothing is left out for them here. All
steps of a chain are done by one producer, or some by each of several, from data set to data set.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from ....schemas.errors import UserError
from ....schemas.labels.annotate import AnnotateConfig
from ....schemas.labels.base import DecodeConfig
from ....schemas.records import ImageRecord, ImageRef, MaskSet
from ...decode import DecodedImage
from ...device import DTYPES
from ...paste import Frame, paste
from ...pixels import Shape
from ..contract import Admit, PixelBatch
from .found import Chain, Found, Photograph, from_prior
from .steps import Steps


@dataclass(frozen=True, slots=True, eq=False)
class Annotated:
    """Pairs of each photograph of a batch, in host memory."""

    found: list[list[Found]]

    def wait(self) -> None:
        """See `contract.Work`: nothing is on its way."""


class Movable(Protocol):
    """A model that can be put on a device."""

    def to(self, device: torch.device, dtype: torch.dtype, /) -> Any:
        """Where and in which arithmetic it computes."""
        ...


class AnnotateProducer:
    """See `contract.Producer`. What is made of a photograph depends on it, its name, and the masks it had alone."""

    memory_key = "annotate.batch_size"

    def __init__(self, config: AnnotateConfig, chain: Chain, admit: Admit, device: torch.device) -> None:
        assert config.annotate.precision != "auto"
        self.device, self.batch_size = device, config.annotate.batch_size
        self.decode: DecodeConfig = config.decode
        self.admit = admit
        self._config, self._steps = config, Steps(config, chain)
        models: list[Movable] = list(chain.roles().values())
        try:
            for model in models:
                model.to(device, DTYPES[config.annotate.precision])
        except torch.OutOfMemoryError:
            raise UserError(
                f"The models ({', '.join(chain.roles())}) do not fit {device} together: annotate with --passes, "
                "one step at a time."
            ) from None

    def forward(self, batch: PixelBatch) -> Annotated:
        """See `contract.Producer`."""
        refs = batch.refs or [ImageRef(0, "", "")] * len(batch.images)
        photographs = [
            Photograph(image.pixels, image, ref, prior)
            for image, ref, prior in zip(batch.images, refs, batch.priors, strict=True)
        ]
        found = [from_prior(one) for one in photographs]
        for step in self._config.annotate.doing:
            found = self._steps.do(step, photographs, found)
        for some in found:
            some.sort(key=lambda one: -one.score)
        return Annotated(found)

    def record(self, work: Annotated, i: int, ref: ImageRef, image: DecodedImage) -> ImageRecord:
        """See `contract.Producer`."""
        size, stored = (image.pixels.shape[0], image.pixels.shape[1]), (image.height, image.width)
        found = work.found[i]
        masks = self._masks(found, Frame(size, size, stored)) if found else None
        return ImageRecord(
            image_id=ref.image_id,
            file_name=ref.file_name,
            status="ok" if masks is not None and len(masks) else "empty",
            width=image.width,
            height=image.height,
            exif_orientation=image.exif_orientation,
            resized_width=size[1],
            resized_height=size[0],
            sha256=image.sha256,
            masks=masks if masks is not None and len(masks) else None,
        )

    def _masks(self, found: list[Found], frame: Frame) -> MaskSet:
        """As they are stored: masks of another data set stay what they were there."""
        before = [one.stored for one in found if one.stored is not None]
        if len(before) == len(found):
            kept, counts = found, [one.counts for one in before]
            bbox = np.stack([one.bbox for one in before])
            area = np.array([one.area for one in before])
        else:
            maps = np.stack([one.shares for one in found])
            pasted = paste(maps, None, frame, threshold=self._config.annotate.threshold)
            kept, counts = [found[place] for place in pasted.kept], pasted.counts
            bbox, area = pasted.bbox, pasted.area
        (height, width), stored = frame.resized, frame.stored
        scale = np.array([stored[1] / width, stored[0] / height] * 2, np.float32)
        return MaskSet(
            counts=counts,
            bbox=bbox,
            area=area,
            score=np.array([one.score for one in kept], np.float32),
            source=self._config.annotate.branch,
            extra={
                "texts": [[one.text] if one.text else [] for one in kept],
                "text_scores": [[one.text_score] if one.text else [] for one in kept],
                "label": np.array([one.label for one in kept], np.int32),
                "tag": [one.tag for one in kept],
                "boxes": [(one.boxes * scale).ravel().tolist() for one in kept],
                "detector_score": np.array([one.detector_score for one in kept], np.float32),
                "segmenter_iou": np.array([one.segmenter_iou for one in kept], np.float32),
            },
        )

    def close(self) -> None:
        """See `contract.Producer`."""


def admit_all(image: DecodedImage) -> Shape:
    """Every image, at its own size."""
    return image.pixels.shape[0], image.pixels.shape[1]
