"""What LVIS changes in COCO's evaluation: a category is not annotated in every image (Gupta et al., LVIS, section 3).

An image's annotations tell the categories that are in it, `neg_category_ids` those that are not, and
`not_exhaustive_category_ids` those of whose objects some may lack an annotation. Of all others nothing is known.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval

from ..schemas.errors import UserError

FREQUENCIES = {"APr": "r", "APc": "c", "APf": "f"}  # rare, common and frequent categories, as the file marks them


def is_federated(truth: Mapping[str, Any]) -> bool:
    """Whether a ground truth is of this kind. Raises UserError if only some of its images are."""
    told = ["neg_category_ids" in image for image in truth["images"]]
    if any(told) != all(told):
        raise UserError(f"{told.count(False)} images lack neg_category_ids, which others have: give LVIS's own file.")
    return all(told)


def answerable(detections: Sequence[Mapping[str, Any]], truth: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Detections of categories that are known to be in their image, or not to be."""
    known: dict[int, set[int]] = defaultdict(set)
    for image in truth["images"]:
        known[image["id"]].update(image["neg_category_ids"])
    for one in truth["annotations"]:
        known[one["image_id"]].add(one["category_id"])
    return [one for one in detections if one["category_id"] in known[one["image_id"]]]


def excuse(evaluation: COCOeval, truth: Mapping[str, Any]) -> None:
    """After `evaluate`, before `accumulate`: what matches nothing is no mistake where objects may lack annotations."""
    unsure = {
        (image["id"], category)
        for image in truth["images"]
        for category in image.get("not_exhaustive_category_ids", ())
    }
    for one in evaluation.evalImgs:
        if one is not None and (one["image_id"], one["category_id"]) in unsure:
            one["dtIgnore"] = np.logical_or(one["dtIgnore"], np.asarray(one["dtMatches"]) == 0)


def by_frequency(evaluation: COCOeval, truth: Mapping[str, Any]) -> dict[str, float]:
    """Mean precision over categories of each frequency, -1 where there is none; nothing for files without them."""
    marks = {one["id"]: one.get("frequency") for one in truth["categories"]}
    if not any(marks.values()):
        return {}
    precision_TRKAM = evaluation.eval["precision"]
    kinds = np.array([marks[category] for category in evaluation.params.catIds])
    return {name: mean_known(precision_TRKAM[:, :, kinds == kind, 0, -1]) for name, kind in FREQUENCIES.items()}


def mean_known(values: Any) -> float:
    """Mean of what COCO's evaluation could tell, -1 if there is nothing."""
    known = values[values > -1]
    return float(known.mean()) if known.size else -1.0
