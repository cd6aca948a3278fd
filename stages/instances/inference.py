"""From the last stage's logits to instances of the stored image (K-Net, section 3.4)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from torch import Tensor

from ...models.instances.host import Stage


@dataclass(frozen=True, slots=True, eq=False)
class Instances:
    """Objects found in one image, best first: compressed RLEs, scores and labels [n]."""

    masks: list[dict[str, Any]]
    scores: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


def find_instances(
    stage: Stage,
    image: int,
    *,
    padded: tuple[int, int],
    resized: tuple[int, int],
    stored: tuple[int, int],
    most: int,
    threshold: float = 0.5,
    min_score: float = 0.0,
) -> Instances:
    """Image number `image` of a batch. Sizes are (height, width): of the batch, of the image in it, and of its file.

    One query may be found under several labels. Masks without a pixel are left out.
    """
    scores_NK = stage.classes[image].float().sigmoid()
    best = scores_NK.flatten().topk(min(most, scores_NK.numel()))
    keep = best.values >= min_score
    queries, labels = best.indices[keep] // scores_NK.shape[1], best.indices[keep] % scores_NK.shape[1]
    scores = best.values[keep].cpu().numpy()
    masks = []
    kept = []
    for place, query in enumerate(queries.tolist()):
        mask = _full_size(stage.masks[image, query], padded, resized, stored) > threshold
        if mask.any():
            masks.append(coco_mask.encode(np.asfortranarray(mask.cpu().numpy().astype(np.uint8))))
            kept.append(place)
    return Instances(masks, scores[kept].astype(np.float32), labels.cpu().numpy()[kept])


def _full_size(mask_hw: Tensor, padded: tuple[int, int], resized: tuple[int, int], stored: tuple[int, int]) -> Tensor:
    """Probabilities of one mask at the size of the stored image."""
    probability = F.interpolate(mask_hw[None, None].float(), scale_factor=2.0, mode="bilinear", align_corners=False)
    probability = F.interpolate(probability.sigmoid(), padded, mode="bilinear", align_corners=False)
    cropped = probability[:, :, : resized[0], : resized[1]]
    full: Tensor = F.interpolate(cropped, stored, mode="bilinear", align_corners=False)[0, 0]
    return full


def as_results(found: Instances, image_id: int, categories: list[int] | None) -> list[dict[str, Any]]:
    """COCO results; `categories` turns labels into the category ids of a file (1 for all without it)."""
    return [
        {
            "image_id": image_id,
            "category_id": 1 if categories is None else categories[label],
            "segmentation": {"size": mask["size"], "counts": mask["counts"].decode("ascii")},
            "score": float(score),
        }
        for mask, score, label in zip(found.masks, found.scores, found.labels.tolist(), strict=True)
    ]


@torch.inference_mode()
def best_masks(stage: Stage) -> Tensor:
    """Probabilities of every query's mask: [B, N, h, w]."""
    return stage.masks.float().sigmoid()
