"""From proposals on the device to the record of one image.

Shape legend: B images, M masks kept by NMS, n masks kept in the end, H W feature cells, D channels.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..schemas.config import Config
from ..schemas.records import ImageRecord, ImageRef, MaskSet
from .decode import DecodedImage
from .encode import encode_masks
from .proposals import Proposals
from .read import BadImage, quarantined
from .saliency import seed_positions


@dataclass(frozen=True, slots=True)
class HostProposals:
    """Proposals on their way to host memory; read `found` only after `wait`."""

    found: Proposals
    copied: torch.cuda.Event | None

    @classmethod
    def copy(cls, found: Proposals) -> "HostProposals":
        """Start the copies, without waiting for the device."""

        def host(tensor: Tensor) -> Tensor:
            if tensor.device.type == "cpu":
                return tensor
            pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            return pinned.copy_(tensor, non_blocking=True)

        moved = Proposals(
            found.layout,
            score=host(found.score),
            score_raw=host(found.score_raw),
            seed_index=host(found.seed_index),
            saliency=host(found.saliency),
            vectors={name: host(tensor) for name, tensor in found.vectors.items()},
            finite=host(found.finite),
        )
        copied = torch.cuda.Event() if found.score.is_cuda else None  # type: ignore[no-untyped-call]
        if copied is not None:
            copied.record()
        return cls(moved, copied)

    def wait(self) -> None:
        """Block this thread, not the device's, until the copies have arrived."""
        if self.copied is not None:
            self.copied.synchronize()


def image_record(ref: ImageRef, image: DecodedImage, host: HostProposals, i: int, config: Config) -> ImageRecord:
    """Encode the masks of image `i` of a batch: filters, upsampling to the stored size, RLE, vectors."""
    found = host.found
    if not bool(found.finite[i]):
        bad = BadImage("non_finite_features", "the backbone gave NaN or infinite features for this image")
        return quarantined(ref, bad, image.sha256)
    count = int((found.score[i] > 0).sum())
    saliency_MHW = found.saliency[i, :count].numpy()
    score = found.score[i, :count].numpy()
    encoded = encode_masks(
        saliency_MHW, score, height=image.height, width=image.width, tau=config.threshold.tau, filters=config.filters
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
