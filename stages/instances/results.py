"""From what a detector found to instances of the stored image.

Shape legend: n instances, h w cells of a map.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from torch import Tensor

from ...models.detector import Found, Size
from ...models.paste import paste_masks


@dataclass(frozen=True, slots=True, eq=False)
class Instances:
    """Objects found in one image, best first: compressed RLEs, scores, labels and sources [n] (see `Found`)."""

    masks: list[dict[str, Any]]
    scores: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    sources: npt.NDArray[np.int64]


def encode_found(found: Found, *, padded: Size, resized: Size, stored: Size, threshold: float = 0.5) -> Instances:
    """The instances of one image as RLEs. Sizes are of the batch, of the image in it, and of its file.

    Masks without a pixel above the threshold are left out: they have no box, and no metric gains by them.
    """
    masks = []
    kept = []
    for place in range(len(found)):
        box = None if found.boxes is None else found.boxes[place]
        mask = full_size(found.maps[place], box, padded, resized, stored) > threshold
        if mask.any():
            masks.append(coco_mask.encode(np.asfortranarray(mask.cpu().numpy().astype(np.uint8))))
            kept.append(place)
    scores, labels, sources = (t.cpu().numpy() for t in (found.scores.float(), found.labels, found.sources))
    return Instances(masks, scores[kept], labels[kept], sources[kept])


def full_size(map_hw: Tensor, box_4: Tensor | None, padded: Size, resized: Size, stored: Size) -> Tensor:
    """Probabilities of one soft mask at the size of the stored image; zero outside the box, if it has one."""
    if box_4 is None:
        whole = F.interpolate(map_hw[None, None].float(), padded, mode="bilinear", align_corners=False)
        cropped = whole[:, :, : resized[0], : resized[1]]
        full: Tensor = F.interpolate(cropped, stored, mode="bilinear", align_corners=False)[0, 0]
        return full
    scale = box_4.new_tensor([stored[1] / resized[1], stored[0] / resized[0]]).repeat(2)
    return paste_masks(map_hw[None], box_4[None] * scale, stored)[0]


def as_results(found: Instances, image_id: int, categories: Sequence[int]) -> list[dict[str, Any]]:
    """COCO results; label i becomes categories[i]. `source` tells copies of one mask under other labels."""
    columns = zip(found.masks, found.scores, found.labels.tolist(), found.sources.tolist(), strict=True)
    return [
        {
            "image_id": image_id,
            "category_id": categories[label],
            "segmentation": {"size": mask["size"], "counts": mask["counts"].decode("ascii")},
            "score": float(score),
            "source": source,
        }
        for mask, score, label, source in columns
    ]


def once_each(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of every mask its best result: where classes don't count, its copies under other labels are no other objects."""
    seen: set[tuple[int, int]] = set()
    kept = []
    for one in results:
        key = (one["image_id"], one["source"])
        if key not in seen:
            seen.add(key)
            kept.append(one)
    return kept
