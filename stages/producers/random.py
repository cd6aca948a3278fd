"""The random producer: rectangles in random places, what pseudo-labels are compared with (Saliency Prompt Table 7)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pycocotools import mask as coco_mask

from ...schemas.labels.random import BoxesConfig, RandomConfig
from ...schemas.records import ImageRef
from ..backbone import LoadedBackbone, load_backbone
from ..decode import DecodedImage
from ..given_masks import GivenMasks, GivenMasksProducer, admit_grid
from .contract import Admit


@dataclass(frozen=True, slots=True, eq=False)
class LoadedRandom:
    """See `contract.Loaded`."""

    backbone: LoadedBackbone

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

    def admission(self, config: RandomConfig) -> Admit:
        """See `contract.Loaded`."""
        return admit_grid(self.backbone, config.features)

    def build(self, config: RandomConfig, device: torch.device) -> GivenMasksProducer:
        """See `contract.Loaded`."""

        def give(ref: ImageRef, image: DecodedImage) -> GivenMasks:
            return random_masks(ref.image_id, image.height, image.width, config.boxes)

        return GivenMasksProducer(self.backbone, config.features, config.prompts, config.decode, device, "random", give)


def load_random(config: RandomConfig) -> LoadedRandom:
    """The configured backbone, its weights fetched and checked."""
    features = config.features
    return LoadedRandom(
        load_backbone(features.weights, arch=features.arch, stride_in_1x1=features.stride_in_1x1, seed=features.seed)
    )


def random_boxes(image_id: int, height: int, width: int, config: BoxesConfig) -> npt.NDArray[np.int64]:
    """XYWH in whole pixels [n, 4]: sides uniform between the bounds, places uniform among those inside the image.

    A function of the image's id, its size and the configuration.
    """
    random = np.random.default_rng((config.seed, image_id))
    sizes_n2 = random.uniform(config.smallest, config.largest, (config.per_image, 2)) * (width, height)
    sides_n2 = np.clip(np.rint(sizes_n2), 1, (width, height)).astype(np.int64)
    corner_n2 = np.floor(random.uniform(size=sides_n2.shape) * ((width, height) - sides_n2 + 1)).astype(np.int64)
    return np.concatenate([corner_n2, sides_n2], axis=1)


def random_masks(image_id: int, height: int, width: int, config: BoxesConfig) -> GivenMasks:
    """The rectangles as masks, all of score 1."""
    boxes_n4 = random_boxes(image_id, height, width, config)
    x, y, w, h = boxes_n4.astype(np.float64).T
    corners = np.stack([x, y, x + w, y, x + w, y + h, x, y + h], axis=1)
    rles = coco_mask.frPyObjects(corners.tolist(), height, width)
    centres_n2 = (boxes_n4[:, :2] + boxes_n4[:, 2:] / 2).astype(np.float32)
    return GivenMasks(
        counts=[rle["counts"] for rle in rles],
        score=np.ones(len(boxes_n4), np.float32),
        at=centres_n2 if config.vector == "centre" else None,
    )
