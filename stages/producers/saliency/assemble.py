"""From proposals on the device to the record of one image.

Shape legend: B images, M masks kept by NMS, n masks kept in the end, H W feature cells, D channels.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ....schemas.labels.saliency import Config
from ....schemas.records import ImageRecord, ImageRef, MaskSet
from ...decode import DecodedImage
from ...encode import encode_masks
from ...pixels import arrival, to_host
from ...read import BadImage, quarantined
from ...refine import refine_maps
from .proposals import Proposals
from .saliency import seed_positions


@dataclass(frozen=True, slots=True)
class PinnedProposals:
    """Proposals on their way to host memory; read `found` only after `wait`."""

    found: Proposals
    copied: torch.cuda.Event | None

    @classmethod
    def copy(cls, found: Proposals) -> "PinnedProposals":
        """Start the copies, without waiting for the device."""
        moved = Proposals(
            found.layout,
            score=to_host(found.score),
            score_raw=to_host(found.score_raw),
            seed_index=to_host(found.seed_index),
            saliency=to_host(found.saliency),
            vectors={name: to_host(tensor) for name, tensor in found.vectors.items()},
            finite=to_host(found.finite),
        )
        return cls(moved, arrival(found.score.device))

    def wait(self) -> None:
        """Block this thread, not the device's, until the copies have arrived."""
        if self.copied is not None:
            self.copied.synchronize()


def image_record(ref: ImageRef, image: DecodedImage, host: PinnedProposals, i: int, config: Config) -> ImageRecord:
    """Encode the masks of image `i` of a batch: filters, upsampling to the stored size, RLE, vectors."""
    found = host.found
    if not bool(found.finite[i]):
        bad = BadImage("non_finite_features", "the backbone gave NaN or infinite features for this image")
        return quarantined(ref, bad, image.sha256)
    count = int((found.score[i] > 0).sum())
    saliency_MHW = found.saliency[i, :count].numpy()
    score = found.score[i, :count].numpy()
    refined_MHW = refine_maps(saliency_MHW, image.pixels, config.refine.radius, config.refine.eps)
    encoded = encode_masks(
        refined_MHW, score, height=image.height, width=image.width, tau=config.threshold.tau, filters=config.filters
    )
    kept = encoded.kept
    masks = None
    if len(kept):
        seeds_n3 = seed_positions(found.layout)[found.seed_index[i, torch.from_numpy(kept)]].numpy()
        masks = MaskSet(
            counts=encoded.counts,
            bbox=encoded.bbox,
            area=encoded.area,
            score=score[kept],
            vectors={name: vectors[i].numpy()[kept] for name, vectors in found.vectors.items()},
            saliency=_as_bytes(saliency_MHW[kept]) if config.encode.saliency else None,
            extra={
                "score_raw": found.score_raw[i].numpy()[kept],
                "seed_scale": seeds_n3[:, 0].astype(np.int8),
                "seed_y": seeds_n3[:, 1],
                "seed_x": seeds_n3[:, 2],
            },
        )
    return ImageRecord(
        image_id=ref.image_id,
        file_name=ref.file_name,
        status="ok" if masks else "empty",
        width=image.width,
        height=image.height,
        exif_orientation=image.exif_orientation,
        resized_width=image.pixels.shape[1],
        resized_height=image.pixels.shape[0],
        sha256=image.sha256,
        masks=masks,
    )


def _as_bytes(saliency_nHW: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    return np.rint(saliency_nHW * 255).astype(np.uint8)
