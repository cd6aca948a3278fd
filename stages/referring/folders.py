"""Data sets that are folders of photographs and label images: salient objects, semantic classes, parts, videos.

- ECSSD (`images`, `ground_truth_mask`), DUTS (`DUTS-TE-Image`, `DUTS-TE-Mask`): a grey PNG for each photograph.
- COCO-Stuff, ADE20K, LIP: a PNG whose pixels are class numbers. ADE20K counts from 1, 0 being nothing.
- PartImageNet: a COCO file whose categories are parts.
- Ref-YouTube-VOS: `meta_expressions.json`, frames, and palette PNGs whose pixels are object numbers.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from ...schemas.errors import UserError
from ...schemas.records import ImageRef
from ..names import stored_name

IGNORE = 255
PHOTOGRAPHS = (".jpg", ".jpeg", ".png")
Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Labelled:
    """A photograph and the file of its labels."""

    ref: ImageRef
    labels: Path


def match_files(images: Path, labels: Path) -> list[Labelled]:
    """Photographs and label images of one name, in order. Raises UserError if a photograph has no labels."""
    for folder in (images, labels):
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder: give the photographs as --images and their labels as --gt.")
    found = sorted(path for path in images.rglob("*") if path.suffix.lower() in PHOTOGRAPHS)
    targets = {path.relative_to(labels).with_suffix("").as_posix(): path for path in labels.rglob("*.png")}
    matched: list[Labelled] = []
    for path in found:
        name = path.relative_to(images)
        stem = name.with_suffix("").as_posix()
        if stem not in targets:
            raise UserError(f"{labels} has no {stem}.png for {path}: give the labels of these photographs.")
        ref = ImageRef(len(matched) + 1, stored_name(name.as_posix()), str(path))
        matched.append(Labelled(ref, targets[stem]))
    if not matched:
        raise UserError(f"{images} has no photograph: give the folder that holds them.")
    return matched


def read_labels(path: Path) -> Labels:
    """Class or object numbers of a PNG, uint8 [h, w]: grey values, or places in its palette."""
    data = path.read_bytes() if path.is_file() else b""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise UserError(f"{path} is no PNG: restore it.")
    from PIL import Image

    try:
        with Image.open(path) as image:  # OpenCV would turn a palette's numbers into colours
            labels = np.array(image if image.mode in ("L", "P") else image.convert("L"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read ({error}): restore it.") from None
    return labels.astype(np.uint8)


def read_salient(path: Path) -> npt.NDArray[np.bool_]:
    """Whether a pixel belongs to the salient object."""
    mask: npt.NDArray[np.bool_] = read_labels(path) > 127
    return mask


def read_classes(file: Path) -> list[str]:
    """Names of classes, in the order of their numbers: one a line, or ADE20K's table with a column `Name`.

    Of several names for one class, parted by commas or semicolons, the first counts.
    """
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}): give names of classes, one a line.") from None
    if lines and "\t" in lines[0] and "Name" in lines[0].split("\t"):
        column = lines[0].split("\t").index("Name")
        lines = [line.split("\t")[column] for line in lines[1:]]
    names = [line.replace(";", ",").split(",")[0].strip() for line in lines]
    if not names or not all(names):
        raise UserError(f"{file} lacks names of classes: write one a line, in the order of their numbers.")
    return names


def shift_classes(labels_HW: Labels, *, zero_is_nothing: bool) -> Labels:
    """Class numbers from 0, and 255 for pixels without one."""
    if not zero_is_nothing:
        return labels_HW
    none = (labels_HW == 0) | (labels_HW == IGNORE)
    return np.where(none, IGNORE, labels_HW - np.uint8(1)).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class PartImage:
    """A photograph, and of each part that occurs in it the union of its masks as RLE, by name."""

    ref: ImageRef
    height: int
    width: int
    parts: dict[str, dict[str, Any]]


def read_parts(file: Path, images: str) -> tuple[list[PartImage], list[str]]:
    """Photographs of a COCO file whose categories are parts (PartImageNet), and the parts' names."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        names = {one["id"]: str(one["name"]).lower() for one in content["categories"]}
        found: dict[int, dict[str, list[Any]]] = {image["id"]: {} for image in content["images"]}
        sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
        for one in content["annotations"]:
            if one["image_id"] in found and one["category_id"] in names and one.get("segmentation"):
                rle = _rle(one["segmentation"], *sizes[one["image_id"]])
                found[one["image_id"]].setdefault(names[one["category_id"]], []).append(rle)
        pictures = [
            PartImage(
                ImageRef(image["id"], image["file_name"], f"{images.rstrip('/')}/{image['file_name']}"),
                image["height"],
                image["width"],
                {name: coco_mask.merge(rles) for name, rles in found[image["id"]].items()},
            )
            for image in content["images"]
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} cannot be read ({error!r}): give PartImageNet's COCO file.") from None
    if not pictures:
        raise UserError(f"{file} lists no image: give PartImageNet's COCO file.")
    return pictures, sorted(set(names.values()))


def _rle(shape: Any, height: int, width: int) -> Any:
    if isinstance(shape, list):
        return coco_mask.merge(coco_mask.frPyObjects(shape, height, width))
    if isinstance(shape["counts"], list):
        return coco_mask.frPyObjects(shape, height, width)
    counts = shape["counts"]
    return {"size": shape["size"], "counts": counts.encode() if isinstance(counts, str) else counts}


@dataclass(frozen=True, slots=True)
class Expression:
    """A sentence about one object of a video; `target` is the object's number, None where the truth is not public."""

    video: str
    name: str
    text: str
    target: int | None


class Videos:
    """Ref-YouTube-VOS: `frames` and, where there is one, `annotations` hold a folder for each video."""

    def __init__(self, meta: Path, frames: Path, annotations: Path | None) -> None:
        try:
            videos = json.loads(meta.read_text(encoding="utf-8"))["videos"]
            self.frames = {str(video): [str(frame) for frame in one["frames"]] for video, one in videos.items()}
            self.expressions = [
                Expression(
                    str(video), str(name), str(said["exp"]), None if "obj_id" not in said else int(said["obj_id"])
                )
                for video, one in videos.items()
                for name, said in one["expressions"].items()
            ]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{meta} cannot be read ({error!r}): give Ref-YouTube-VOS's meta_expressions.json."
            ) from None
        if not self.expressions:
            raise UserError(f"{meta} has no expression: give Ref-YouTube-VOS's meta_expressions.json.")
        self._frames, self._annotations = frames, annotations

    def by_video(self) -> Iterator[tuple[str, list[Expression]]]:
        """Videos and what is said about them."""
        for video in self.frames:
            if mine := [one for one in self.expressions if one.video == video]:
                yield video, mine

    def frame(self, video: str, frame: str) -> ImageRef:
        """A photograph of a video."""
        name = f"{video}/{frame}.jpg"
        return ImageRef(0, name, str(self._frames / name))

    def truth(self, video: str, frame: str) -> Labels | None:
        """Object numbers of a frame; None for one that is not annotated."""
        if self._annotations is None:
            return None
        path = self._annotations / video / f"{frame}.png"
        return read_labels(path) if path.is_file() else None


def write_submission(out: Path, one: Expression, frame: str, mask_HW: npt.NDArray[np.bool_]) -> None:
    """A mask where the evaluation server wants it: `Annotations/VIDEO/EXPRESSION/FRAME.png`, 0 and 255."""
    folder = out / "Annotations" / one.video / one.name
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / f"{frame}.png"), mask_HW.astype(np.uint8) * 255)
