"""Evaluation of classes that had masks in training and of those that had none, as ContrastMask's tables show it."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..schemas.partial import Group, Split
from .evaluate import MOST, IouType, evaluate_coco

COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl")  # of the paper's tables
GROUPS: tuple[Group, ...] = ("novel", "base", "all")


def evaluate_groups(
    gt: Path,
    detections: Sequence[Mapping[str, Any]],
    categories: Sequence[int],
    split: Split,
    groups: Collection[Group] = GROUPS,
    iou_types: Collection[IouType] = ("segm", "bbox"),
    *,
    image_ids: Collection[int] | None = None,
    most: int = MOST,
) -> dict[str, dict[str, Any]]:
    """`evaluate_coco` with categories, for each group: the mean over its classes on all images.

    `categories` are the file's category ids in the order of the labels that `split` speaks of. Detections of other
    groups neither help nor harm. Raises UserError as `evaluate_coco` does.
    """
    return {
        group: evaluate_coco(
            gt,
            detections,
            iou_types,
            class_agnostic=False,
            image_ids=image_ids,
            category_ids=[categories[label] for label in split.labels(group)],
            most=most,
        )
        for group in groups
    }


def format_groups(results: Mapping[str, Mapping[str, Any]], iou_type: IouType = "segm") -> str:
    """A text table: a row per group, a column per metric in per cent; `-` where a metric is undefined."""
    lines = [f"{'':8}" + "".join(f"{name:>8}" for name in COLUMNS)]
    for group, report in results.items():
        values = [report[iou_type][name] for name in COLUMNS]
        lines.append(f"{group:8}" + "".join(f"{'-' if value is None else format(value, '.1f'):>8}" for value in values))
    return "\n".join(lines)
