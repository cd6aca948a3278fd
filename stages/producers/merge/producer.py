"""The merge producer: features on the device; superpixels, hierarchies and encoding beside it.

Shape legend: B images, N leaves, K candidates, M kept masks, H W pixels, D channels, h w feature cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from torch import Tensor

from ....schemas.labels.merge import MergeLabelConfig
from ....schemas.records import MaskSet
from ...decode import DecodedImage
from ...encode import EncodedMasks, Floats, encode_runs, upsampled_runs
from ...features import load_features
from ...pixels import to_host
from ...refine import refine_maps
from ..contract import PixelBatch, Prior
from ..featured import FeatureProducer, LoadedProducer
from .draw import Sets, prior_sets, runs_of_sets
from .regions import propose_regions
from .score import overlaps, suppress_regions
from .superpixels import Leaves, find_leaves

_AT_ONCE = 8  # masks refined together: bounds memory


@dataclass(frozen=True, slots=True, eq=False)
class FeaturesOfBatch:
    """Features of each scale [B, D, h, w], fp32, and the masks that images have."""

    scales: Sequence[Tensor]
    priors: Sequence[Prior | None]


class MergeProducer(FeatureProducer[MergeLabelConfig, FeaturesOfBatch]):
    """See `contract.Producer`."""

    def find(self, batch: PixelBatch) -> FeaturesOfBatch:
        """Features alone: what follows has few operations that gain from a device."""
        images_B3HW = self._features.normalise(self._features.upload(batch.pixels))
        maps = []
        for scale in self._config.merge.scales:
            scaled = images_B3HW
            if scale != 1:
                size = [max(1, round(side * scale)) for side in images_B3HW.shape[2:]]
                scaled = F.interpolate(images_B3HW, size, mode="bilinear", antialias=scale < 1)
            maps.append(to_host(self._features.forward(scaled).float().contiguous()))
        return FeaturesOfBatch(maps, batch.priors)

    def finite(self, found: FeaturesOfBatch, i: int) -> bool:
        """See `FeatureProducer`."""
        return all(np.isfinite(scale[i].numpy()).all() for scale in found.scales)

    def masks(self, found: FeaturesOfBatch, i: int, image: DecodedImage) -> MaskSet | None:
        """See `FeatureProducer`."""
        return find_masks(image, [scale[i].numpy() for scale in found.scales], found.priors[i], self._config)


def load_merge(config: MergeLabelConfig) -> LoadedProducer[MergeLabelConfig]:
    """The configured backbone, its weights fetched and checked."""
    return LoadedProducer(load_features(config.features), MergeProducer)


def find_masks(
    image: DecodedImage, maps_Dhw: Sequence[Floats], prior: Prior | None, config: MergeLabelConfig
) -> MaskSet | None:
    """The masks of one image, from its features at each scale; those of a prior first, as they are, if it is filled."""
    merge = config.merge
    leaves = find_leaves(image.pixels, merge.side)
    found = propose_regions(leaves, maps_Dhw, merge)
    inside_KN, score_K, iou_KK, before = found.inside, found.score, found.iou, 0
    if merge.fill is not None and prior is not None and len(prior):
        before = len(prior)
        inside_KN = np.concatenate([prior_sets(prior, leaves.labels, image.height, image.width), inside_KN])
        score_K = np.concatenate([prior.score, score_K * np.float32(merge.fill)])
        iou_KK = overlaps(inside_KN, leaves.sizes)
    kept = suppress_regions(iou_KK, score_K, merge.iou_threshold, merge.max_masks)
    own = kept[kept >= before]
    drawn = _draw(inside_KN[own], leaves, image, config)
    counts = dict(zip(own[drawn.kept].tolist(), zip(drawn.counts, drawn.bbox, drawn.area, strict=True), strict=True))
    for k in range(before):
        assert prior is not None
        rle = {"size": [image.height, image.width], "counts": prior.counts[k]}
        counts[k] = (prior.counts[k], prior.bbox[k], int(coco_mask.area(rle)))
    kept = np.array([k for k in kept.tolist() if k in counts], np.int64)
    if not len(kept):
        return None
    return MaskSet(
        counts=[counts[k][0] for k in kept.tolist()],
        bbox=np.stack([counts[k][1] for k in kept.tolist()]).astype(np.float32),
        area=np.array([counts[k][2] for k in kept.tolist()], np.int64),
        score=score_K[kept],
        vectors={} if before or not merge.vectors else {"seed": _unit(found.features[kept])},
        source="merge",
        extra={"hierarchy": np.concatenate([np.full(before, -1), found.tree])[kept].astype(np.int8)},
    )


def _unit(vectors_MD: Floats) -> npt.NDArray[np.float16]:
    norm_M1 = np.maximum(np.linalg.norm(vectors_MD, axis=1, keepdims=True), 1e-12)
    unit: npt.NDArray[np.float16] = (vectors_MD / norm_M1).astype(np.float16)
    return unit


def _draw(inside_KN: Sets, leaves: Leaves, image: DecodedImage, config: MergeLabelConfig) -> EncodedMasks:
    """Masks of the stored image, those without a pixel left out."""
    if not len(inside_KN):
        return EncodedMasks(np.zeros(0, np.int64), [], np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    if not config.refine.radius:
        return encode_runs(runs_of_sets(inside_KN, leaves.labels, image.height, image.width))
    parts = []
    for first in range(0, len(inside_KN), _AT_ONCE):
        maps_KHW = inside_KN[first : first + _AT_ONCE][:, leaves.labels].astype(np.float32)
        refined_KHW = refine_maps(maps_KHW, image.pixels, config.refine.radius, config.refine.eps)
        parts.append((first, encode_runs(upsampled_runs(refined_KHW, image.height, image.width, 0.5))))
    return EncodedMasks(
        np.concatenate([part.kept + first for first, part in parts]),
        [counts for _, part in parts for counts in part.counts],
        np.concatenate([part.bbox for _, part in parts]),
        np.concatenate([part.area for _, part in parts]),
    )
