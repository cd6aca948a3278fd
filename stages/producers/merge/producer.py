"""The merge producer: features on the device; superpixels, hierarchies and encoding beside it.

Shape legend: B images, N leaves, K candidates, M kept masks, H W pixels, D channels, h w feature cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from torch import Tensor

from ....schemas.errors import UserError
from ....schemas.labels.merge import MergeLabelConfig
from ....schemas.records import ImageRecord, ImageRef, MaskSet
from ...decode import DecodedImage
from ...encode import EncodedMasks, Floats, encode_runs, upsampled_runs
from ...features import FeatureExtractor, LoadedFeatures, load_features
from ...pixels import arrival, to_host
from ...read import BadImage, quarantined
from ...refine import refine_maps
from ..contract import Admit, PixelBatch, Prior
from .draw import Sets, prior_sets, runs_of_sets
from .regions import propose_regions
from .score import overlaps, suppress_regions
from .superpixels import Leaves, find_leaves

_AT_ONCE = 8  # masks refined together: bounds memory


class LoadedMerge(LoadedFeatures):
    """See `contract.Loaded`."""

    def admission(self, config: MergeLabelConfig) -> Admit:
        """See `contract.Loaded`."""
        return self.admit(config.features.level)

    def build(self, config: MergeLabelConfig, device: torch.device) -> "MergeProducer":
        """See `contract.Loaded`."""
        if config.merge.max_area <= config.merge.min_area:
            raise UserError("merge.max_area must be above merge.min_area: raise one or lower the other.")
        return MergeProducer(config, FeatureExtractor(self.backbone, config.features, device), self.admission(config))


def load_merge(config: MergeLabelConfig) -> LoadedMerge:
    """The configured backbone, its weights fetched and checked."""
    return LoadedMerge(load_features(config.features))


@dataclass(frozen=True, slots=True, eq=False)
class FeaturesOfBatch:
    """Features of each scale [B, D, h, w], fp32, on their way to host memory."""

    scales: Sequence[Tensor]
    priors: Sequence[Prior | None]
    arrived: torch.cuda.Event | None

    def wait(self) -> None:
        """See `contract.Work`."""
        if self.arrived is not None:
            self.arrived.synchronize()


class MergeProducer:
    """See `contract.Producer`."""

    memory_key = "features.batch_size"

    def __init__(self, config: MergeLabelConfig, features: FeatureExtractor, admit: Admit) -> None:
        self.device = features.device
        self.batch_size = config.features.batch_size
        self.decode = config.decode
        self.admit = admit
        self._config = config
        self._features = features

    def forward(self, batch: PixelBatch) -> FeaturesOfBatch:
        """See `contract.Producer`."""
        images_B3HW = self._features.normalise(self._features.upload(batch.pixels))
        maps = []
        for scale in self._config.merge.scales:
            scaled = images_B3HW
            if scale != 1:
                size = [max(1, round(side * scale)) for side in images_B3HW.shape[2:]]
                scaled = F.interpolate(images_B3HW, size, mode="bilinear", antialias=scale < 1)
            maps.append(to_host(self._features.forward(scaled).float().contiguous()))
        return FeaturesOfBatch(maps, batch.priors, arrival(self.device))

    def record(self, work: FeaturesOfBatch, i: int, ref: ImageRef, image: DecodedImage) -> ImageRecord:
        """See `contract.Producer`."""
        maps = [scale[i].numpy() for scale in work.scales]
        if not all(np.isfinite(one).all() for one in maps):
            bad = BadImage("non_finite_features", "the backbone gave NaN or infinite features for this image")
            return quarantined(ref, bad, image.sha256)
        found = find_masks(image, maps, work.priors[i], self._config)
        height, width = image.pixels.shape[:2]
        return ImageRecord(
            image_id=ref.image_id,
            file_name=ref.file_name,
            status="ok" if found else "empty",
            width=image.width,
            height=image.height,
            exif_orientation=image.exif_orientation,
            resized_width=width,
            resized_height=height,
            sha256=image.sha256,
            masks=found,
        )

    def close(self) -> None:
        """See `contract.Producer`."""


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
