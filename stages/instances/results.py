"""From what a detector found to instances of the stored image.

Shape legend: n instances, h w cells of a map.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...models.detector import Found, Size
from ..paste import Frame, paste


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
    boxes = None if found.boxes is None else found.boxes.float().cpu().numpy()
    pasted = paste(found.maps.float().cpu().numpy(), boxes, Frame(padded, resized, stored), threshold=threshold)
    scores, labels, sources = (
        t.cpu().numpy()[pasted.kept] for t in (found.scores.float(), found.labels, found.sources)
    )
    masks = [{"size": list(stored), "counts": counts} for counts in pasted.counts]
    return Instances(masks, scores, labels, sources)


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
