"""Class-agnostic evaluation of a data set against COCO ground truth."""

from pathlib import Path
from typing import Any

from ..schemas.errors import UserError
from ..stages.evaluate import detections_from_dataset, evaluate_coco, match_image_ids
from ..store.dataset import Dataset


def evaluate_dataset(dataset: Dataset, gt: Path, *, all_images: bool = False) -> dict[str, Any]:
    """AP and AR of masks and boxes in per cent, over the images that data set and ground truth share.

    Images are matched by file name, whatever their ids. With `all_images`, those that only the ground truth has
    count as missed. Raises UserError if none is shared.
    """
    ids = match_image_ids((dataset.read_images(commit) for commit in dataset.checked_commits()), gt)
    if not ids:
        raise UserError(
            f"No image of {dataset.url} has a file name that {gt} knows: give the annotations of its images."
        )
    detections = detections_from_dataset((dataset.read_masks(commit) for commit in dataset.checked_commits()), ids)
    return evaluate_coco(gt, detections, image_ids=None if all_images else set(ids.values()))
