"""COCO annotations as training samples, with the traps of such files named or survived."""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from torch.utils.data import Dataset

from ...schemas.errors import UserError
from ...schemas.records import ImageRef
from ...store.weights import sha256_of
from ..evaluate import Annotated, read_annotations
from .pseudo_match import stand_in
from .samples import Sample, decode_masks, load_pixels, make_sample


@dataclass(frozen=True, slots=True)
class Labelled:
    """One annotated image; labels count from 0 in the order of category ids; weights are 1 but of pseudo-masks.

    boxes: by place, those (XYXY) of objects whose own mask is not there to be learned from.
    """

    file_name: str
    image_id: int
    annotated: Annotated
    labels: list[int]
    weights: list[float]
    boxes: dict[int, list[float]]


class CocoInstances(Dataset[Sample]):
    """Images of a folder with the objects of a COCO file, but crowds and objects without area.

    `categories` are its category ids and `class_names` their names: label i is categories[i]. `sha256` is of the file.
    `indices` choose among its list of images,
    else so many `percent` of it are drawn; `chosen` are those, None for all. With `empty` false images without an
    object are left out. `alone` is the number of objects whose annotation has no mask.

    With `boxes_alone` an annotation may have a box and no mask, and only masks of the labels `masked` may be learned
    from (None: all): other objects have `has_mask` false. `pseudo` gives an image's pseudo-masks and their scores, of
    which those objects get one that fits their box. With `mask_percent` only the masks of so many of all annotations
    may be learned from, with `mask_per_image` those of so many images; `masks_chosen` are those, None for all.
    """

    def __init__(
        self,
        folder: str,
        gt: str,
        *,
        size: tuple[int, int],
        keep_ratio: bool = True,
        indices: Sequence[int] | None = None,
        percent: float = 100.0,
        empty: bool = False,
        boxes_alone: bool = False,
        masked: Collection[int] | None = None,
        pseudo: Callable[[str], tuple[list[dict[str, Any]], list[float]]] | None = None,
        mask_percent: float = 100.0,
        mask_per_image: bool = False,
        max_pixels: int = 100_000_000,
    ) -> None:
        found, self.categories = read_annotations(Path(gt), boxes_alone=boxes_alone)
        self.class_names, self.sha256 = category_names(Path(gt), self.categories), sha256_of(Path(gt))
        place = {category: label for label, category in enumerate(self.categories)}
        names = list(found)
        if indices is None and percent < 100:
            indices = choose_subset(len(names), percent)
        self.chosen = None if indices is None else list(indices)
        if indices is not None:
            if bad := [i for i in indices if not 0 <= i < len(names)]:
                raise UserError(f"{gt} lists {len(names)} images, and the subset names number {bad[0]}: give its list.")
            names = [names[i] for i in indices]
        self._items = []
        self.alone = 0
        for name in names:
            one = found[name]
            areas = coco_mask.area(one.masks) if one.masks else np.empty(0)
            keep = np.flatnonzero(areas > 0)
            one = Annotated(
                one.height,
                one.width,
                [one.masks[i] for i in keep],
                [one.labels[i] for i in keep],
                one.image_id,
                [one.category_ids[i] for i in keep],
                [one.has_mask[i] for i in keep],
            )
            self.alone += one.has_mask.count(False)
            labels, weights = [place[c] for c in one.category_ids], [1.0] * len(keep)
            if masked is not None:
                one.has_mask[:] = [known and label in masked for known, label in zip(one.has_mask, labels, strict=True)]
            boxes = {i: _corners(one.masks[i]) for i, known in enumerate(one.has_mask) if not known}
            if pseudo is not None:
                one.masks[:], one.has_mask[:], weights = stand_in(one.masks, one.has_mask, *pseudo(name))
            if len(keep) or empty:
                self._items.append(Labelled(name, one.image_id, one, labels, weights, boxes))
        if not self._items:
            raise UserError(f"No image of {gt} has an object to train on: give a file with annotations.")
        self.masks_chosen = None
        if mask_percent < 100:
            self.masks_chosen = limit_masks(self._items, mask_percent, per_image=mask_per_image)
        self._folder, self._size, self._max_pixels = folder.rstrip("/"), size, max_pixels
        self._keep_ratio = keep_ratio
        self._refs = self.refs()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def labels(self) -> list[list[int]]:
        """Labels of each image's objects."""
        return [item.labels for item in self._items]

    @property
    def image_ids(self) -> list[int]:
        """Ids of the images, in order."""
        return [item.image_id for item in self._items]

    def refs(self) -> list[ImageRef]:
        """Where the images are, in order."""
        return [
            ImageRef(
                item.image_id,
                item.file_name,
                f"{self._folder}/{item.file_name}",
                width=item.annotated.width,
                height=item.annotated.height,
            )
            for item in self._items
        ]

    def __getitem__(self, index: int) -> Sample:
        return self.load(index, self._size)

    def load(self, index: int, size: tuple[int, int]) -> Sample:
        """An item decoded at (short side, at most long side)."""
        item, one = self._items[index], self._items[index].annotated
        pixels, stored = load_pixels(self._refs[index], size, self._max_pixels, keep_ratio=self._keep_ratio)
        about: dict[str, Any] = {"image_id": item.image_id, "file_name": item.file_name, "stored": stored}
        masks = decode_masks(one.masks, *pixels.shape[:2])
        scale = [pixels.shape[1] / one.width, pixels.shape[0] / one.height] * 2
        boxes = {i: [x * by for x, by in zip(box, scale, strict=True)] for i, box in item.boxes.items()}
        return make_sample(pixels, masks, item.labels, about, scores=item.weights, has_mask=one.has_mask, boxes=boxes)


def _corners(mask: dict[str, Any]) -> list[float]:
    """The tight box of an RLE, XYXY."""
    x, y, width, height = (float(value) for value in coco_mask.toBbox(mask))
    return [x, y, x + width, y + height]


def category_names(gt: Path, categories: Sequence[int]) -> list[str]:
    """Of a COCO file: the names of categories, their numbers where it has none."""
    listed = json.loads(gt.read_text(encoding="utf-8")).get("categories", [])
    names = {one.get("id"): str(one.get("name", one.get("id"))) for one in listed if isinstance(one, dict)}
    return [names.get(category, str(category)) for category in categories]


def limit_masks(items: Sequence[Labelled], percent: float, *, per_image: bool) -> list[int]:
    """Leave a mask to so many annotations (or those of so many images), and say to which, counted in order."""
    owners = [(item, place) for item in items for place in range(len(item.labels))]
    if per_image:
        chosen = {id(items[i]) for i in choose_subset(len(items), percent, option="--mask-fraction")}
        drawn = [number for number, (item, _) in enumerate(owners) if id(item) in chosen]
    else:
        drawn = choose_subset(len(owners), percent, what="masks", option="--mask-fraction")
    kept = set(drawn)
    for number, (item, place) in enumerate(owners):
        if number not in kept and item.annotated.has_mask[place]:
            item.annotated.has_mask[place] = False
            item.boxes[place] = _corners(item.annotated.masks[place])
    return drawn


def choose_subset(
    count: int, percent: float, seed: int = 1, *, what: str = "images", option: str = "--fraction"
) -> list[int]:
    """floor(count * percent / 100) indices without replacement, sorted; numpy's generator of this seed."""
    size = int(count * percent / 100)
    if size < 1:
        raise UserError(f"{percent:g} % of {count} {what} is none: raise {option}.")
    return sorted(np.random.default_rng(seed).choice(count, size, replace=False).tolist())


def write_subset(path: Path, percent: float, indices: Sequence[int], seed: str = "1") -> None:
    """A list of indices as `read_subset` takes it."""
    path.write_text(json.dumps({f"{float(percent)}": {seed: list(indices)}}) + "\n", encoding="utf-8")


def read_subset(path: Path, percent: float, seed: str = "1") -> list[int]:
    """A list of indices from a file percent -> seed -> list, as COCO_supervision.txt has it."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        by_percent = {float(key): lists for key, lists in table.items()}
        return sorted(int(i) for i in by_percent[percent][seed])
    except (OSError, ValueError, AttributeError, TypeError):
        raise UserError(f"{path} is no list of subsets: give JSON of percent -> seed -> indices.") from None
    except KeyError:
        raise UserError(f"{path} has no list of {percent:g} % under seed {seed}: choose another --fraction.") from None
