"""The imported producer: anybody's masks as labels, with vectors of a frozen backbone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask

from ...schemas.errors import UserError
from ...schemas.labels.imported import ImportedConfig, MasksConfig
from ...schemas.records import ImageRef
from ..backbone import LoadedBackbone, load_backbone
from ..decode import DecodedImage
from ..given_masks import GivenMasks, GivenMasksProducer, admit_grid
from ..mask_files.base import MaskFiles
from ..mask_files.registry import FORMATS
from .contract import Admit


@dataclass(frozen=True, slots=True, eq=False)
class LoadedImported:
    """See `contract.Loaded`."""

    backbone: LoadedBackbone
    files: MaskFiles

    @property
    def weights(self) -> str:
        """See `contract.Loaded`."""
        return self.backbone.weights

    @property
    def weights_sha256(self) -> str:
        """See `contract.Loaded`."""
        return self.backbone.weights_sha256

    @property
    def facts(self) -> dict[str, Any]:
        """See `contract.Loaded`."""
        return self.backbone.facts

    def admission(self, config: ImportedConfig) -> Admit:
        """See `contract.Loaded`."""
        return admit_grid(self.backbone, config.features)

    def build(self, config: ImportedConfig, device: torch.device) -> GivenMasksProducer:
        """See `contract.Loaded`."""

        def give(ref: ImageRef, image: DecodedImage) -> GivenMasks:
            return chosen(self.files, ref, image, config.masks)

        return GivenMasksProducer(
            self.backbone, config.features, config.prompts, config.decode, device, "imported", give
        )


def load_imported(config: ImportedConfig) -> LoadedImported:
    """The masks and the configured backbone. Raises UserError if the masks are not those that were planned."""
    masks, features = config.masks, config.features
    if not masks.path:
        raise UserError("An import needs masks: name them with `import-masks`.")
    files = FORMATS[masks.format](Path(masks.path))
    if masks.sha256 not in ("", files.sha256):
        raise UserError(f"{masks.path} has changed since the import was planned: restore it, or choose another --out.")
    backbone = load_backbone(
        features.weights, arch=features.arch, stride_in_1x1=features.stride_in_1x1, seed=features.seed
    )
    return LoadedImported(backbone, files)


def chosen(files: MaskFiles, ref: ImageRef, image: DecodedImage, config: MasksConfig) -> GivenMasks:
    """The masks of an image that are taken, best first; equal scores keep their order."""
    size = (image.height, image.width)
    found = [one for one in files.find(ref, size) if one.score >= config.min_score]
    rles = [{"size": list(size), "counts": one.counts} for one in found]
    areas = coco_mask.area(rles).tolist() if rles else []
    kept = [one for one, area in zip(found, areas, strict=True) if area >= config.min_area]
    kept = sorted(kept, key=lambda one: -one.score)[: config.max_masks]
    return GivenMasks(
        counts=[one.counts for one in kept],
        score=np.array([min(1.0, max(0.0, one.score)) for one in kept], np.float32),
        extra={"label": np.array([one.label for one in kept], np.int32)},
    )
