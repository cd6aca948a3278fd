"""Class-agnostic and per-class COCO AP and AR, with pycocotools' silent traps closed.

The traps (each has a test): a detection on a category that the ground truth lacks is dropped; a ground-truth
annotation with id 0 counts as never matched; detections that carry boxes get the boxes' areas, which moves
masks between the small, medium and large bins; masks of another size than the ground truth's match nothing;
for another number of detections than 100, AP is -1.
"""

import contextlib
import io
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..schemas.errors import UserError
from .federated import answerable, by_frequency, excuse, is_federated, mean_known

IouType = Literal["segm", "bbox"]
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
MOST = 100  # detections of an image that count


@dataclass(frozen=True, slots=True)
class Judge:
    """A library with the interface of pycocotools: its classes of annotations and of an evaluation."""

    annotations: Callable[[], Any]
    evaluation: Callable[[Any, Any, str], Any]


PYCOCOTOOLS = Judge(COCO, COCOeval)


def fastest_judge() -> Judge:
    """faster-coco-eval if it is installed, else pycocotools."""
    try:
        import faster_coco_eval
    except ImportError:
        return PYCOCOTOOLS
    return Judge(faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster)


def evaluate_coco(
    gt: Path,
    detections: Sequence[Mapping[str, Any]],
    iou_types: Collection[IouType] = ("segm", "bbox"),
    *,
    class_agnostic: bool = True,
    image_ids: Collection[int] | None = None,
    category_ids: Collection[int] | None = None,
    most: int = MOST,
    judge: Judge | None = None,
) -> dict[str, Any]:
    """COCO AP and AR in per cent, at IoU 0.50:0.95 and at most 1, 10 and `most` detections per image.

    `gt` is a COCO annotation file. Detections are COCO results: `image_id`, `score`, and `segmentation` (RLE)
    or `bbox` (XYWH); with a mask, the box is the mask's tight box. Class-agnostic evaluation ignores categories
    on both sides; otherwise `category_id` is needed. All images of the ground truth count, those without
    detections too, or only `image_ids`; with categories, all of them or only `category_ids`. The judge is
    faster-coco-eval where it is installed (the same numbers but for rounding), else pycocotools.

    Of LVIS's files (`federated`) detections count, with categories, only where the file tells; and there are "APr",
    "APc" and "APf" of rare, common and frequent categories. LVIS takes 300 as `most`.

    Returns {"segm": {metric: value or None where undefined}, "bbox": {...}, "images": number evaluated, "objects":
    number in them that may be found, "ignored_images": number of images with detections that the ground truth lacks}.
    """
    truth = _read_ground_truth(gt)
    known = {image["id"] for image in truth["images"]}
    chosen = known if image_ids is None else set(image_ids)
    if not chosen <= known:
        raise UserError(
            f"{len(chosen - known)} of the {len(chosen)} images to evaluate are not in {gt}: "
            "choose among its image ids."
        )
    found = {d["image_id"] for d in detections}
    if found and not found & known:
        raise UserError(
            f"None of the {len(found)} images with detections is among the {len(known)} images of {gt}: "
            "give the annotation file of the same images, or match them by file name."
        )
    usable = [d for d in detections if d["image_id"] in chosen]
    categories = [category["id"] for category in truth["categories"]]
    if not class_agnostic and (lost := sum(d.get("category_id") not in set(categories) for d in usable)):
        raise UserError(
            f"{lost} detections have a category that {gt} lacks: map their category_id to its categories, "
            "or evaluate class-agnostically."
        )

    sizes = {image["id"]: [image["height"], image["width"]] for image in truth["images"]}
    if odd := sum(list(d["segmentation"]["size"]) != sizes[d["image_id"]] for d in usable if "segmentation" in d):
        # pycocotools gives such pairs an IoU of -1 without a word
        raise UserError(
            f"{odd} masks have another size than their image in {gt}: make masks of the same images, "
            "unrotated (decode.exif = ignore)."
        )

    if most <= 10:
        raise UserError(f"At most {most} detections an image leave no AR at 10: take more than 10.")
    federated = not class_agnostic and is_federated(truth)
    if federated:
        usable = answerable(usable, truth)

    wanted = categories if category_ids is None else sorted(category_ids)
    if category_ids is not None and (class_agnostic or not wanted or not set(wanted) <= set(categories)):
        # pycocotools averages over whatever is asked for, and ignores the question without categories
        raise UserError(f"Categories to evaluate must be some of {gt}, with class_agnostic off: choose among its ids.")

    # what LVIS does not count is taken from pycocotools' own matches
    judge = PYCOCOTOOLS if federated else judge or fastest_judge()
    report: dict[str, Any] = {}
    for iou_type in iou_types:
        coco_gt = _coco({**truth, "annotations": _truth_annotations(truth, iou_type, gt)}, judge)
        results = [
            _result(i, d, iou_type, categories[0] if class_agnostic else d["category_id"])
            for i, d in enumerate(usable, start=1)
        ]
        evaluation = judge.evaluation(coco_gt, _coco({**truth, "annotations": results}, judge), iou_type)
        evaluation.params.useCats = 0 if class_agnostic else 1
        evaluation.params.imgIds, evaluation.params.catIds = sorted(chosen), wanted
        evaluation.params.maxDets = [1, 10, most]
        report[iou_type] = _summary(evaluation, truth if federated else None)
    objects = sum(
        one["image_id"] in chosen and not one.get("iscrowd") and (class_agnostic or one["category_id"] in wanted)
        for one in truth["annotations"]
    )
    return {**report, "images": len(chosen), "objects": objects, "ignored_images": len(found - known)}


def detections_from_dataset(
    masks: Iterable[pa.Table], image_ids: Mapping[int, int] | None = None
) -> list[dict[str, Any]]:
    """COCO results of a data set's mask tables (`schemas.records.MASKS_SCHEMA`), category 1 for all.

    `image_ids` translates the data set's image ids into those of a ground truth; masks of images that it lacks
    are left out.
    """
    detections = []
    for table in masks:
        names = ["image_id", "counts", "height", "width", "bbox", "score"]
        for image_id, counts, height, width, bbox, score in zip(
            *(table.column(name).to_pylist() for name in names), strict=True
        ):
            if image_ids is not None and image_id not in image_ids:
                continue
            detections.append(
                {
                    "image_id": image_id if image_ids is None else image_ids[image_id],
                    "category_id": 1,
                    "segmentation": {"size": [height, width], "counts": counts.decode("ascii")},
                    "bbox": bbox,
                    "score": score,
                }
            )
    return detections


def match_image_ids(images: Iterable[pa.Table], gt: Path) -> dict[int, int]:
    """Image ids of a data set (`schemas.records.IMAGES_SCHEMA`) -> those of a COCO file, as `match_names`."""
    names: dict[int, str] = {}
    for table in images:
        names.update(zip(table.column("image_id").to_pylist(), table.column("file_name").to_pylist(), strict=True))
    return match_names(names, gt, "the data set")


def match_names(names: Mapping[int, str], gt: Path, whose: str) -> dict[int, int]:
    """Image ids -> those of a COCO file, matched by file name; `whose` they are is for messages.

    Equal relative paths match first, then equal base names. Images without a partner are left out. Raises UserError if
    none has one, or if names are ambiguous.
    """
    truth = {image["file_name"]: image["id"] for image in _read_ground_truth(gt)["images"] if "file_name" in image}
    matched = {image_id: truth[name] for image_id, name in names.items() if name in truth}

    taken = set(matched.values())
    candidates = [(PurePosixPath(name).name, image_id) for name, image_id in truth.items() if image_id not in taken]
    waiting = [(PurePosixPath(name).name, image_id) for image_id, name in names.items() if image_id not in matched]
    wanted = Counter(base for base, _ in waiting)
    offered = Counter(base for base, _ in candidates)
    if twice := [base for base in offered if wanted[base] and wanted[base] + offered[base] > 2]:
        raise UserError(
            f"{len(twice)} file names, such as {twice[0]!r}, stand for several images: "
            f"write paths relative to the photographs' root into the file_name fields of {gt}."
        )
    by_base = dict(candidates)
    matched.update((image_id, by_base[base]) for base, image_id in waiting if base in by_base)
    if names and not matched:
        raise UserError(
            f"None of the {len(names)} images of {whose} has the file name of one of the {len(truth)} images "
            f"of {gt}: give the annotation file of the same images."
        )
    return matched


@dataclass(frozen=True, slots=True)
class Annotated:
    """One image of a ground truth: compressed RLEs of its objects but crowds, and the names of their categories.

    Where has_mask is false, the file has a box alone, and the RLE fills it.
    """

    height: int
    width: int
    masks: list[dict[str, Any]]
    labels: list[str]
    image_id: int
    category_ids: list[int]
    has_mask: list[bool]


def read_annotations(gt: Path, *, boxes_alone: bool = False) -> tuple[dict[str, Annotated], list[int]]:
    """The images of a COCO file by file name, and its category ids in order, which may have gaps.

    With `boxes_alone` annotations may lack masks. Raises UserError if it cannot be used.
    """
    truth = _read_ground_truth(gt)
    names = {category["id"]: str(category.get("name", category["id"])) for category in truth["categories"]}
    coco = _coco({**truth, "annotations": _truth_annotations(truth, "bbox" if boxes_alone else "segm", gt)})
    found = {}
    for image in truth["images"]:
        objects = [one for one in coco.imgToAnns.get(image["id"], []) if not one["iscrowd"]]
        found[str(image.get("file_name", image["id"]))] = Annotated(
            image["height"],
            image["width"],
            [
                coco.annToRLE(one) if one.get("segmentation") else _filled(one["bbox"], image["height"], image["width"])
                for one in objects
            ],
            [names.get(one["category_id"], "") for one in objects],
            image["id"],
            [one["category_id"] for one in objects],
            [bool(one.get("segmentation")) for one in objects],
        )
    return found, sorted(names)


def _filled(bbox: Sequence[float], height: int, width: int) -> dict[str, Any]:
    """The pixels of a box (XYWH) as a compressed RLE, within the image; none for a box without area."""
    x, y, w, h = (float(value) for value in bbox)
    left, top, right, bottom = max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))
    size = [max(0.0, right - left), max(0.0, bottom - top)]
    box = np.array([[left, top, *size] if all(size) else [0.0] * 4])
    encoded: dict[str, Any] = coco_mask.frPyObjects(box, height, width)[0]
    return encoded


def _read_ground_truth(path: Path) -> dict[str, Any]:
    try:
        truth = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"Cannot read {path} ({error.strerror}): give an existing COCO annotation file.") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: give a COCO annotation file.") from error
    lists = ("images", "annotations", "categories")
    if not isinstance(truth, dict) or not all(isinstance(truth.get(key), list) for key in lists):
        raise UserError(f"{path} lacks images, annotations or categories: give a COCO instances file.")
    if not truth["images"] or not truth["categories"]:
        raise UserError(f"{path} has no images or no categories: give a COCO instances file that has them.")
    if poor := sum(not {"id", "height", "width"} <= image.keys() for image in truth["images"]):
        raise UserError(f"{poor} images of {path} lack id, height or width: add the missing fields.")
    return truth


def _truth_annotations(truth: Mapping[str, Any], iou_type: IouType, path: Path) -> list[dict[str, Any]]:
    """Copies of the annotations, numbered from 1, with the fields that pycocotools needs."""
    if iou_type == "segm" and (bare := sum(not a.get("segmentation") for a in truth["annotations"])):
        raise UserError(
            f"{bare} annotations of {path} have boxes but no masks: evaluate boxes only, "
            "or give a file with a segmentation in every annotation."
        )
    needed = {"image_id", "category_id", "area", "bbox"}
    if poor := sum(not needed <= a.keys() for a in truth["annotations"]):
        raise UserError(f"{poor} annotations of {path} lack one of {sorted(needed)}: add the missing fields.")
    return [{"iscrowd": 0, **a, "id": i} for i, a in enumerate(truth["annotations"], start=1)]


def _result(number: int, detection: Mapping[str, Any], iou_type: IouType, category: int) -> dict[str, Any]:
    """A detection as an annotation of its own; its area is that of what is compared."""
    result = {"id": number, "image_id": detection["image_id"], "category_id": category, "iscrowd": 0}
    result["score"] = detection["score"]
    mask = detection.get("segmentation")
    if iou_type == "segm":
        if mask is None:
            raise UserError("Some detections have no segmentation: evaluate boxes only, or give masks.")
        return {**result, "segmentation": mask, "area": float(coco_mask.area(mask))}
    bbox = detection["bbox"] if mask is None else coco_mask.toBbox(mask).tolist()
    return {**result, "bbox": bbox, "area": bbox[2] * bbox[3]}


def _coco(content: dict[str, Any], judge: Judge = PYCOCOTOOLS) -> Any:
    coco = judge.annotations()
    coco.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _summary(evaluation: Any, federated: Mapping[str, Any] | None) -> dict[str, float | None]:
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        if federated is not None:
            excuse(evaluation, federated)
        evaluation.accumulate()
        evaluation.summarize()
    names = [name.replace("100", str(evaluation.params.maxDets[-1])) for name in METRICS]
    stats = dict(zip(names, np.asarray(evaluation.stats, np.float64).tolist(), strict=True))
    stats["AP"] = mean_known(evaluation.eval["precision"][:, :, :, 0, -1])
    if federated is not None:
        stats |= by_frequency(evaluation, federated)
    return {name: None if value < 0 else 100 * value for name, value in stats.items()}
