"""Evaluation of a data set, or of a file of results, against COCO ground truth."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..schemas.errors import UserError
from ..stages.evaluate import (
    IouType,
    detections_from_dataset,
    evaluate_coco,
    match_image_ids,
    match_names,
    read_annotations,
)
from ..stages.instances.results import once_each
from ..store.dataset import Dataset
from .sources import open_source

BOTH: tuple[IouType, ...] = ("segm", "bbox")


def evaluate_dataset(
    dataset: Dataset, gt: Path, *, all_images: bool = False, boxes: bool = False, listed: Path | None = None
) -> dict[str, Any]:
    """AP and AR of masks and boxes in per cent, over the images that data set and ground truth share.

    Images are matched by file name, whatever their ids. With `all_images`, those that only the ground truth has
    count as missed. `boxes` leaves out masks, which a ground truth of boxes needs. `listed` is a text file that names
    the images that count (see `listed_images`). `ignored_images` counts those that the ground truth lacks. Raises
    UserError if none is shared.
    """
    labelled = 0

    def images() -> Iterator[pa.Table]:
        nonlocal labelled
        for commit in dataset.checked_commits():
            labelled += commit.counts.images
            yield dataset.read_images(commit)

    ids = match_image_ids(images(), gt)
    if not ids:
        raise UserError(
            f"No image of {dataset.url} has a file name that {gt} knows: give the annotations of its images."
        )
    ignored = labelled - len(ids)
    chosen = None if all_images else set(ids.values())
    if listed is not None:
        wanted = listed_images(gt, listed)
        chosen = wanted if chosen is None else chosen & wanted
        ids = {mine: other for mine, other in ids.items() if other in wanted}
        if not ids:
            raise UserError(f"No image of {dataset.url} is among those that {listed} names: give another list.")
    detections = detections_from_dataset((dataset.read_masks(commit) for commit in dataset.checked_commits()), ids)
    report = evaluate_coco(gt, detections, ("bbox",) if boxes else BOTH, image_ids=chosen)
    return {**report, "ignored_images": ignored}


def evaluate_results(
    results: Path, gt: Path, *, images: str | None = None, boxes: bool = False, listed: Path | None = None
) -> dict[str, Any]:
    """AP and AR of a file of COCO results, such as `predict` writes: `class_agnostic`, and `classes` where it has some.

    Results that have a `file_name` are matched by it, whatever their ids; others by `image_id`. All images of the
    ground truth count, of which results without objects say nothing: with `images`, where the photographs are, only
    those that are there, and with `listed` those that a text file names. Raises UserError.
    """
    found = [{"source": -number, **one} for number, one in enumerate(_read_results(results), 1)]  # none is a copy
    if all("file_name" in one for one in found) and found:
        ids = match_names({one["image_id"]: str(one["file_name"]) for one in found}, gt, str(results))
        found = [{**one, "image_id": ids[one["image_id"]]} for one in found if one["image_id"] in ids]
    chosen: set[int] | None = None
    if images is not None:
        there = {ref.image_id: ref.file_name for ref in open_source(images).refs()}
        chosen = set(match_names(there, gt, images).values())
    if listed is not None:
        wanted = listed_images(gt, listed)
        chosen = wanted if chosen is None else chosen & wanted
    kinds: tuple[IouType, ...] = ("bbox",) if boxes or not all("segmentation" in one for one in found) else BOTH
    report = {"class_agnostic": evaluate_coco(gt, once_each(found), kinds, image_ids=chosen)}
    known = set(read_annotations(gt, boxes_alone=True)[1])
    if len(known) > 1 and {one.get("category_id") for one in found} <= known:
        report["classes"] = evaluate_coco(gt, found, kinds, class_agnostic=False, image_ids=chosen)
    return report


def _read_results(path: Path) -> list[dict[str, Any]]:
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give a file of COCO results.") from None
    except ValueError:
        found = None
    needed = {"image_id", "score"}
    if not isinstance(found, list) or not all(
        isinstance(one, dict) and needed <= one.keys() and one.keys() & {"segmentation", "bbox"} for one in found
    ):
        raise UserError(f"{path} is no list of COCO results: give one, such as `predict` writes.")
    return found


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
