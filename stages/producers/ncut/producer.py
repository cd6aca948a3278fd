"""The ncut producer: features and cuts on the device; connected parts, refinement and encoding beside it.

Shape legend: B images, R rounds, n masks, h w cells, H W pixels.
"""

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from ....schemas.labels.ncut import NcutLabelConfig
from ....schemas.records import MaskSet
from ...decode import DecodedImage
from ...encode import Floats, encode_runs, upsampled_runs
from ...features import load_features
from ...pixels import to_host
from ...refine import refine_maps
from ..contract import PixelBatch
from ..featured import FeatureProducer, LoadedProducer
from .cut import Cuts, mask_cuts, one_cut


class NcutProducer(FeatureProducer[NcutLabelConfig, Cuts]):
    """See `contract.Producer`."""

    def find(self, batch: PixelBatch) -> Cuts:
        """Cuts, on their way to host memory."""
        cut = self._config.cut
        features_BDhw = self._features(self._features.upload(batch.pixels)).float()
        height, width = features_BDhw.shape[2:]
        if height * width > cut.max_cells:
            shrink = (cut.max_cells / (height * width)) ** 0.5
            size = (max(1, int(height * shrink)), max(1, int(width * shrink)))
            features_BDhw = F.adaptive_avg_pool2d(features_BDhw, size)
        # on a CPU the affinities of one image stay in its cache, those of a batch do not: 0.04 s an image for 0.34
        pieces = torch.split(features_BDhw, 1) if self.device.type == "cpu" else (features_BDhw,)
        found = [
            mask_cuts(piece, cut.tau, cut.rounds)
            if cut.kind == "mask"
            else one_cut(piece, cut.neighbours, cut.sharpening)
            for piece in pieces
        ]
        return Cuts(
            to_host(torch.cat([one.maps for one in found])),
            to_host(torch.cat([one.scores for one in found])),
            to_host(torch.cat([one.finite for one in found])),
        )

    def finite(self, found: Cuts, i: int) -> bool:
        """See `FeatureProducer`."""
        return bool(found.finite[i])

    def masks(self, found: Cuts, i: int, image: DecodedImage) -> MaskSet | None:
        """See `FeatureProducer`."""
        config = self._config
        maps_nhw, scores_n = connected_parts(
            found.maps[i].numpy(), found.scores[i].numpy(), config.cut.min_cells, config.cut.max_masks
        )
        if not len(maps_nhw):
            return None
        refined = refine_maps(maps_nhw, image.pixels, config.refine.radius, config.refine.eps)
        encoded = encode_runs(upsampled_runs(refined, image.height, image.width, 0.5))
        if not len(encoded.kept):
            return None
        return MaskSet(
            counts=encoded.counts, bbox=encoded.bbox, area=encoded.area, score=scores_n[encoded.kept], source="ncut"
        )


def load_ncut(config: NcutLabelConfig) -> LoadedProducer[NcutLabelConfig]:
    """The configured backbone, its weights fetched and checked."""
    return LoadedProducer(load_features(config.features), NcutProducer)


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
