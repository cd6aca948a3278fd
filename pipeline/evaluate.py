"""Class-agnostic evaluation of a data set against COCO ground truth."""

import json
from pathlib import Path
from typing import Any

from ..schemas.errors import UserError
from ..stages.evaluate import IouType, detections_from_dataset, evaluate_coco, match_image_ids
from ..store.dataset import Dataset


def evaluate_dataset(
    dataset: Dataset, gt: Path, *, all_images: bool = False, boxes: bool = False, listed: Path | None = None
) -> dict[str, Any]:
    """AP and AR of masks and boxes in per cent, over the images that data set and ground truth share.

    Images are matched by file name, whatever their ids. With `all_images`, those that only the ground truth has
    count as missed. `boxes` leaves out masks, which a ground truth of boxes needs. `listed` is a text file that names
    the images that count (see `listed_images`). Raises UserError if none is shared.
    """
    ids = match_image_ids((dataset.read_images(commit) for commit in dataset.checked_commits()), gt)
    if not ids:
        raise UserError(
            f"No image of {dataset.url} has a file name that {gt} knows: give the annotations of its images."
        )
    chosen = None if all_images else set(ids.values())
    if listed is not None:
        wanted = listed_images(gt, listed)
        chosen = wanted if chosen is None else chosen & wanted
        ids = {mine: other for mine, other in ids.items() if other in wanted}
        if not ids:
            raise UserError(f"No image of {dataset.url} is among those that {listed} names: give another list.")
    detections = detections_from_dataset((dataset.read_masks(commit) for commit in dataset.checked_commits()), ids)
    kinds: tuple[IouType, ...] = ("bbox",) if boxes else ("segm", "bbox")
    return evaluate_coco(gt, detections, kinds, image_ids=chosen)


def listed_images(gt: Path, listed: Path) -> set[int]:
    """Ids of the images that a text file names, one a line: by file name, with folders and suffix or without, or by id.

    Such are the COCO 20k list of object discovery and VOC's ImageSets. Raises UserError for a line that names none.
    """
    try:
        lines = listed.read_text(encoding="utf-8").split("\n")
        images = json.loads(gt.read_text(encoding="utf-8"))["images"]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{listed} and {gt} must be readable text ({error}): give other files.") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{gt} is no COCO annotation file: give one.") from None
    known: dict[str, int] = {}
    for image in images:
        name = Path(str(image.get("file_name", "")))
        for one in (str(image["id"]), name.stem, name.name, name.as_posix()):
            known[one] = image["id"]
    found = set()
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        name = Path(words[0])
        match = next((known[one] for one in (words[0], name.name, name.stem) if one in known), None)
        if match is None:
            raise UserError(f"Line {number} of {listed} names {words[0]}, which {gt} lacks: give its own list.")
        found.add(match)
    if not found:
        raise UserError(f"{listed} names no image: give one name a line.")
    return found
