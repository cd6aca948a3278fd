"""The ncut producer: features and cuts on the device; connected parts, refinement and encoding beside it.

Shape legend: B images, R rounds, n masks, h w cells, H W pixels.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from ....schemas.labels.ncut import NcutLabelConfig
from ....schemas.records import ImageRecord, ImageRef, MaskSet
from ...decode import DecodedImage
from ...encode import EncodedMasks, Floats, encode_runs, upsampled_runs
from ...features import FeatureExtractor, LoadedFeatures, load_features
from ...pixels import arrival, to_host
from ...read import BadImage, quarantined
from ...refine import refine_maps
from ..contract import Admit, PixelBatch
from .cut import Cuts, mask_cuts, one_cut


class LoadedNcut(LoadedFeatures):
    """See `contract.Loaded`."""

    def admission(self, config: NcutLabelConfig) -> Admit:
        """See `contract.Loaded`."""
        return self.admit(config.features.level)

    def build(self, config: NcutLabelConfig, device: torch.device) -> "NcutProducer":
        """See `contract.Loaded`."""
        return NcutProducer(config, FeatureExtractor(self.backbone, config.features, device), self.admission(config))


def load_ncut(config: NcutLabelConfig) -> LoadedNcut:
    """The configured backbone, its weights fetched and checked."""
    return LoadedNcut(load_features(config.features))


@dataclass(frozen=True, slots=True, eq=False)
class CutsOfBatch:
    """Cuts on their way to host memory; read them after `wait`."""

    cuts: Cuts
    arrived: torch.cuda.Event | None

    def wait(self) -> None:
        """See `contract.Work`."""
        if self.arrived is not None:
            self.arrived.synchronize()


class NcutProducer:
    """See `contract.Producer`."""

    memory_key = "features.batch_size"

    def __init__(self, config: NcutLabelConfig, features: FeatureExtractor, admit: Admit) -> None:
        self.device = features.device
        self.batch_size = config.features.batch_size
        self.decode = config.decode
        self.admit = admit
        self._config = config
        self._features = features

    def forward(self, batch: PixelBatch) -> CutsOfBatch:
        """See `contract.Producer`."""
        cut = self._config.cut
        features_BDhw = self._features(self._features.upload(batch.pixels)).float()
        height, width = features_BDhw.shape[2:]
        if height * width > cut.max_cells:
            shrink = (cut.max_cells / (height * width)) ** 0.5
            size = (max(1, int(height * shrink)), max(1, int(width * shrink)))
            features_BDhw = F.adaptive_avg_pool2d(features_BDhw, size)
        found = (
            mask_cuts(features_BDhw, cut.tau, cut.rounds)
            if cut.kind == "mask"
            else one_cut(features_BDhw, cut.neighbours, cut.sharpening)
        )
        host = Cuts(to_host(found.maps), to_host(found.scores), to_host(found.finite))
        return CutsOfBatch(host, arrival(self.device))

    def record(self, work: CutsOfBatch, i: int, ref: ImageRef, image: DecodedImage) -> ImageRecord:
        """See `contract.Producer`."""
        if not bool(work.cuts.finite[i]):
            bad = BadImage("non_finite_features", "the backbone gave NaN or infinite features for this image")
            return quarantined(ref, bad, image.sha256)
        config = self._config
        maps_nhw, scores_n = connected_parts(
            work.cuts.maps[i].numpy(), work.cuts.scores[i].numpy(), config.cut.min_cells, config.cut.max_masks
        )
        masks = None
        if len(maps_nhw):
            refined = refine_maps(maps_nhw, image.pixels, config.refine.radius, config.refine.eps)
            encoded: EncodedMasks = encode_runs(upsampled_runs(refined, image.height, image.width, 0.5))
            if len(encoded.kept):
                masks = MaskSet(
                    counts=encoded.counts,
                    bbox=encoded.bbox,
                    area=encoded.area,
                    score=scores_n[encoded.kept],
                    source="ncut",
                )
        height, width = image.pixels.shape[:2]
        return ImageRecord(
            image_id=ref.image_id,
            file_name=ref.file_name,
            status="ok" if masks else "empty",
            width=image.width,
            height=image.height,
            exif_orientation=image.exif_orientation,
            resized_width=width,
            resized_height=height,
            sha256=image.sha256,
            masks=masks,
        )

    def close(self) -> None:
        """See `contract.Producer`."""


def connected_parts(maps_Rhw: Floats, scores_R: Floats, min_cells: int, most: int) -> tuple[Floats, Floats]:
    """The connected parts of what is inside each map, best first: soft maps [n, h, w] and scores [n].

    A part's score is that of its map times the mean of the map in it. A neighbourhood of one cell keeps its values, so
    that its border lies where the whole map's does.
    """
    parts: list[Floats] = []
    scores: list[float] = []
    for map_hw, score in zip(maps_Rhw, scores_R.tolist(), strict=True):
        if score <= 0:
            continue
        count, labels_hw = cv2.connectedComponents((map_hw >= 0.5).astype(np.uint8), connectivity=4)
        for label in range(1, count):
            inside = labels_hw == label
            if inside.sum() < min_cells:
                continue
            near = cv2.dilate(inside.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
            others = (labels_hw > 0) & ~inside
            parts.append(np.where(near & ~others, map_hw, 0).astype(np.float32))
            scores.append(score * float(map_hw[inside].mean()))
    if not parts:
        return np.zeros((0, *maps_Rhw.shape[1:]), np.float32), np.zeros(0, np.float32)
    score_n = np.array(scores, np.float32)
    order = np.argsort(-score_n, kind="stable")[:most]
    return np.stack(parts)[order], score_n[order]
