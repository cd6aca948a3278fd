"""Partial supervision of a training run: which classes have masks, and pseudo-masks that stand in for the others."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...schemas.errors import UserError
from ...schemas.partial import Split, split_classes
from ...schemas.run import RunCard
from ...schemas.training.registry import MODELS
from ...stages.evaluate import detections_from_dataset, match_image_ids, read_annotations
from ...stages.instances.labelled import category_names
from ...store.dataset import Dataset

Rle = dict[str, Any]
PseudoMasks = Callable[[str], tuple[list[Rle], list[float]]]  # from a file name to an image's masks and scores


def read_split(gt: Path, base: str) -> Split:
    """The split of a file's categories: `voc`, `nonvoc`, a file of names, or names by comma. Raises UserError."""
    _, categories = read_annotations(gt, boxes_alone=True)
    names = category_names(gt, categories)
    if base in {"voc", "nonvoc"} or not Path(base).is_file():
        return split_classes(names, base)
    try:
        return split_classes(names, Path(base).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        raise UserError(
            f"{base} cannot be read as text: give a file with the name of a base class in each line."
        ) from None


def split_of(card: RunCard) -> Split | None:
    """The split that a run was trained with, by its labels; None for full supervision."""
    if not card.base:
        return None
    labels = {category: label for label, category in enumerate(card.categories)}
    base = {labels[category] for category in card.base}
    return Split(tuple(sorted(base)), tuple(sorted(set(labels.values()) - base)))


def read_pseudo_masks(url: str, gt: Path) -> tuple[PseudoMasks, str]:
    """Masks of a sealed data set for the images of a COCO file, matched by file name; and the data set's root hash."""
    dataset = Dataset.open(url)
    if dataset.sealed is None:
        raise UserError(f"{url} is not sealed: finish it with `generate`.")
    ids = match_image_ids((dataset.read_images(commit) for commit in dataset.checked_commits()), gt)
    if not ids:
        raise UserError(f"No image of {url} has a file name that {gt} knows: give the pseudo-labels of its images.")
    images, _ = read_annotations(gt, boxes_alone=True)
    sizes = {one.image_id: [one.height, one.width] for one in images.values()}
    names = {one.image_id: name for name, one in images.items()}
    found: dict[str, tuple[list[Rle], list[float]]] = defaultdict(lambda: ([], []))
    for one in detections_from_dataset((dataset.read_masks(commit) for commit in dataset.checked_commits()), ids):
        mask, image_id = one["segmentation"], one["image_id"]
        if list(mask["size"]) != sizes[image_id]:
            raise UserError(
                f"The masks of {names[image_id]} in {url} have another size than {gt} says: make both from the same "
                "photographs, unrotated (decode.exif = ignore)."
            )
        masks, scores = found[names[image_id]]
        masks.append(mask)
        scores.append(float(one["score"]))
    complete = dict(found)
    return (lambda name: complete.get(name, ([], []))), dataset.sealed.root_hash


def check_boxes_alone(model: str, *, alone: int, asked: Sequence[str]) -> None:
    """Raise UserError if a model that learns from masks is given boxes: in so many annotations, or by options."""
    if MODELS[model].boxes_alone or not (alone or asked):
        return
    able = [name for name, spec in MODELS.items() if spec.boxes_alone]
    others = f"{', '.join(able[:-1])} or {able[-1]}"
    if asked:
        raise UserError(f"{model} learns from masks alone: leave {asked[0]} out, or train {others}.")
    raise UserError(
        f"{alone} annotations have boxes but no masks, and {model} learns from masks: give each a segmentation, or "
        f"train {others}."
    )
