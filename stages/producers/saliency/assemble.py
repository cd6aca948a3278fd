"""From proposals on the device to the record of one image.

Shape legend: B images, M masks kept by NMS, n masks kept in the end, H W feature cells, D channels.
"""

import numpy as np
import numpy.typing as npt
import torch

from ....schemas.labels.saliency import Config
from ....schemas.records import MaskSet
from ...decode import DecodedImage
from ...encode import encode_masks
from ...pixels import Shape, to_host
from ...refine import refine_maps
from .proposals import Proposals
from .saliency import seed_positions


def pinned(found: Proposals) -> Proposals:
    """Proposals on their way to host memory."""
    return Proposals(
        found.layout,
        score=to_host(found.score),
        score_raw=to_host(found.score_raw),
        seed_index=to_host(found.seed_index),
        saliency=to_host(found.saliency),
        vectors={name: to_host(tensor) for name, tensor in found.vectors.items()},
        finite=to_host(found.finite),
    )


def encode_proposals(found: Proposals, i: int, image: DecodedImage, config: Config) -> MaskSet | None:
    """The masks of image `i` of a batch: filters, upsampling to the stored size, RLE, vectors."""
    count = int((found.score[i] > 0).sum())
    saliency_MHW = found.saliency[i, :count].numpy()
    score = found.score[i, :count].numpy()
    refined_MHW = refine_maps(saliency_MHW, image.pixels, config.refine.radius, config.refine.eps)
    height, width = image.pixels.shape[:2]
    rows, columns = padded_shape((height, width), config.saliency.pad_to)
    encoded = encode_masks(
        refined_MHW,
        score,
        height=image.height,
        width=image.width,
        tau=config.threshold.tau,
        filters=config.filters,
        share=(height / rows, width / columns),
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
    return masks


def padded_shape(shape: Shape, multiple: int) -> Shape:
    """(height, width) as the backbone sees it: the next multiples."""
    rows, columns = (-(-side // multiple) * multiple for side in shape)
    return rows, columns


def _as_bytes(saliency_nHW: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    return np.rint(saliency_nHW * 255).astype(np.uint8)
