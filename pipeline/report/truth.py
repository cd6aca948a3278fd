"""Ground truth over sampled images: what was found, and what was missed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from ...schemas.errors import UserError
from ...stages.evaluate import read_annotations
from ...stages.statistics import match, rles
from .gallery import outline
from .sample import Sampled


def truth_of(samples: Sequence[Sampled], gt: Path) -> list[list[dict[str, Any]] | None]:
    """For every image the annotated objects as outlines with the IoU of the mask that found them, 0 if none did.

    None for images that the file lacks, or has in another size.
    """
    by_name, _ = read_annotations(gt)
    found: list[list[dict[str, Any]] | None] = []
    for sampled in samples:
        row = sampled.row
        name = row["file_name"]
        entry = by_name.get(name) or by_name.get(Path(name).name)
        if entry is None or (entry.height, entry.width) != (row["height"], row["width"]):
            found.append(None)
            continue
        masks = rles(sampled.masks["counts"].to_pylist(), row["height"], row["width"])
        ious = {j: iou for _, j, iou in match(masks, entry.masks)}
        found.append(
            [
                {
                    "d": outline(one["counts"], row["height"], row["width"]),
                    "box": [round(float(v)) for v in coco_mask.toBbox(one)],
                    "iou": round(ious.get(j, 0.0), 3),
                    "label": label,
                }
                for j, (one, label) in enumerate(zip(entry.masks, entry.labels, strict=True))
            ]
        )
    if samples and all(one is None for one in found):
        raise UserError(f"{gt} knows none of the sampled images: give the annotations of the same photographs.")
    return found
