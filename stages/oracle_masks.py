"""How good detections would be if every mask were perfect (SOLO thesis, section 3.3.5)."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from .evaluate import Annotated


def with_oracle_masks(detections: Sequence[Mapping[str, Any]], truth: Iterable[Annotated]) -> list[dict[str, Any]]:
    """COCO results whose masks are those of the truth with the highest IoU in their image; scores and labels stay.

    A detection that touches no object keeps its mask. Masks are compressed RLEs of the truth's size.
    """
    objects = {image.image_id: image.masks for image in truth}
    places: dict[int, list[int]] = defaultdict(list)
    for place, one in enumerate(detections):
        places[one["image_id"]].append(place)
    results = [dict(one) for one in detections]
    for image_id, own in places.items():
        masks = objects.get(image_id, [])
        if not masks:
            continue
        found = [detections[place]["segmentation"] for place in own]
        iou = np.asarray(coco_mask.iou(found, masks, [0] * len(masks)))
        for place, row in zip(own, iou, strict=True):
            if row.max() > 0:
                best = masks[int(row.argmax())]
                counts = best["counts"]
                text = counts.decode("ascii") if isinstance(counts, bytes) else counts
                results[place]["segmentation"] = {"size": best["size"], "counts": text}
    return results
