"""COCO's panoptic format, and Panoptic Quality (Kirillov et al., Panoptic Segmentation).

A picture holds the number of each pixel's segment, id = R + 256 G + 256^2 B; 0 is void, where nothing is known. A json
tells the category of each number.

Shape legend: H W pixels, T segments of the truth, P of the prediction.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..models.solo.panoptic import Segment
from ..schemas.errors import UserError

Ids = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
VOID = 0
UNKNOWN = 255  # in a map of training: no class is learned there


@dataclass(frozen=True, slots=True)
class Category:
    """What a segment may be."""

    number: int
    name: str
    is_thing: bool


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """A segment of a picture: its number there, its category's, and whether it is a group of things."""

    number: int
    category: int
    crowd: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """An image of a panoptic json: its number, size, and file names of photograph and PNG."""

    image_id: int
    image_file: str
    png_file: str
    height: int
    width: int
    segments: tuple[SegmentInfo, ...]


def encode_ids(ids_HW: Ids) -> Bytes:
    """Numbers of segments as RGB [H, W, 3]."""
    return np.stack([ids_HW >> shift & 255 for shift in (0, 8, 16)], axis=2).astype(np.uint8)


def decode_ids(rgb_HW3: Bytes) -> Ids:
    """RGB as numbers of segments [H, W]."""
    red, green, blue = np.moveaxis(rgb_HW3.astype(np.int64), 2, 0)
    ids: Ids = red + 256 * green + 65536 * blue
    return ids


def encode_png(ids_HW: Ids) -> bytes:
    """A picture as a PNG file."""
    return cv2.imencode(".png", np.ascontiguousarray(encode_ids(ids_HW)[:, :, ::-1]))[1].tobytes()


def read_panoptic(path: Path) -> tuple[list[Picture], list[Category]]:
    """Pictures and categories of a panoptic json. Raises UserError if it is none."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"Cannot read {path} ({error.strerror}): give an existing panoptic annotation file.") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: give a COCO panoptic annotation file.") from error
    try:
        images = {image["id"]: image for image in content["images"]}
        categories = [
            Category(one["id"], str(one.get("name", one["id"])), bool(one["isthing"])) for one in content["categories"]
        ]
        pictures = [_picture(one, images[one["image_id"]]) for one in content["annotations"]]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} lacks {error} where a panoptic file has it: give a COCO panoptic file.") from error
    known = {one.number for one in categories}
    if strange := {s.category for one in pictures for s in one.segments} - known:
        raise UserError(f"{path} has segments of category {min(strange)}, which it does not list: add the category.")
    return pictures, categories


def _picture(annotation: Mapping[str, Any], image: Mapping[str, Any]) -> Picture:
    segments = tuple(
        SegmentInfo(one["id"], one["category_id"], bool(one.get("iscrowd", 0))) for one in annotation["segments_info"]
    )
    return Picture(image["id"], image["file_name"], annotation["file_name"], image["height"], image["width"], segments)


def read_ids(path: Path, picture: Picture) -> Ids:
    """The PNG of a picture [H, W]. Raises UserError where it and the json disagree, naming the file alone."""
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR_RGB) if path.is_file() else None
    if image is None:
        raise UserError(f"{path.name} cannot be read as a PNG: give the folder of the panoptic json's pictures.")
    ids = decode_ids(image.astype(np.uint8))
    if ids.shape != (picture.height, picture.width):
        raise UserError(
            f"{path.name} is {ids.shape[1]} x {ids.shape[0]}, but the panoptic json says "
            f"{picture.width} x {picture.height}: make both from the same annotations."
        )
    drawn, listed = set(np.unique(ids).tolist()) - {VOID}, {one.number for one in picture.segments}
    if drawn != listed:
        raise UserError(
            f"{path.name} has segments {sorted(drawn - listed)[:3]} that the panoptic json does not list, or lacks "
            f"{sorted(listed - drawn)[:3]} that it does: make both from the same annotations."
        )
    return ids


def semantic_map(ids_HW: Ids, segments: Iterable[SegmentInfo], categories: Sequence[Category]) -> Bytes:
    """What a semantic branch learns [H, W]: 0 things, 1.. stuff in the categories' order, 255 void."""
    stuff = [one.number for one in categories if not one.is_thing]
    wanted = np.full(ids_HW.shape, UNKNOWN, np.uint8)
    for one in segments:
        wanted[ids_HW == one.number] = stuff.index(one.category) + 1 if one.category in stuff else 0
    return wanted


def thing_masks(ids_HW: Ids, segments: Iterable[SegmentInfo], categories: Sequence[Category]) -> tuple[Bytes, Ids]:
    """What a detector learns: 0/1 masks of things but crowds [M, H, W], and labels in the things' order [M]."""
    things = [one.number for one in categories if one.is_thing]
    chosen = [one for one in segments if one.category in things and not one.crowd]
    masks = [(ids_HW == one.number).astype(np.uint8) for one in chosen]
    labels = np.array([things.index(one.category) for one in chosen], np.int64)
    return np.stack(masks) if masks else np.zeros((0, *ids_HW.shape), np.uint8), labels


def with_categories(segments: Iterable[Segment], categories: Sequence[Category]) -> list[SegmentInfo]:
    """Segments of a model's picture under the categories' numbers."""
    kinds = {kind: [one.number for one in categories if one.is_thing == kind] for kind in (True, False)}
    return [SegmentInfo(one.number, kinds[one.is_thing][one.label]) for one in segments]


def as_annotation(image_id: int, png_file: str, ids_HW: Ids, segments: Iterable[SegmentInfo]) -> dict[str, Any]:
    """A picture's entry of a panoptic json; boxes XYWH. Segments without a pixel are left out."""
    infos = []
    for one in segments:
        rows, columns = np.nonzero(ids_HW == one.number)
        if len(rows):
            left, top = int(columns.min()), int(rows.min())
            box = [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top]
            infos.append(
                {
                    "id": one.number,
                    "category_id": one.category,
                    "iscrowd": int(one.crowd),
                    "area": len(rows),
                    "bbox": box,
                }
            )
    return {"image_id": image_id, "file_name": png_file, "segments_info": infos}


@dataclass(slots=True)
class Tally:
    """Of one category: the sum of IoU over matches, matches, and what is left over on both sides."""

    iou: float = 0.0
    matched: int = 0
    false_found: int = 0
    missed: int = 0


@dataclass(slots=True)
class Quality:
    """Panoptic Quality of a set of pictures; `add` them one by one."""

    categories: Sequence[Category]
    tallies: dict[int, Tally] = field(default_factory=dict)

    def add(self, found_HW: Ids, found: Sequence[SegmentInfo], truth_HW: Ids, truth: Sequence[SegmentInfo]) -> None:
        """Count one picture; see `matches`."""
        iou_TP, excused_P = matches(found_HW, found, truth_HW, truth)
        matched_T, matched_P = (iou_TP > 0).sum(1), (iou_TP > 0).sum(0)
        for place, other in np.argwhere(iou_TP > 0):
            tally = self._tally(truth[place].category)
            tally.iou += float(iou_TP[place, other])
            tally.matched += 1
        for place, one in enumerate(truth):
            if not (matched_T[place] or one.crowd):
                self._tally(one.category).missed += 1
        for place, one in enumerate(found):
            if not (matched_P[place] or excused_P[place]):
                self._tally(one.category).false_found += 1

    def summary(self) -> dict[str, float | int | None]:
        """PQ, SQ and RQ in per cent, of all categories that occur, things (`_th`) and stuff (`_st`), and their number.

        None where no category occurs.
        """
        report: dict[str, float | int | None] = {}
        for suffix, kinds in (("", (True, False)), ("_th", (True,)), ("_st", (False,))):
            rows = [
                _quality(self.tallies[one.number])
                for one in self.categories
                if one.is_thing in kinds and one.number in self.tallies
            ]
            for name, values in zip(("PQ", "SQ", "RQ"), zip(*rows, strict=True) if rows else ((), (), ()), strict=True):
                report[name + suffix] = 100 * float(np.mean(values)) if rows else None
            report["categories" + suffix] = len(rows)
        return report

    def _tally(self, category: int) -> Tally:
        return self.tallies.setdefault(category, Tally())


def _quality(tally: Tally) -> tuple[float, float, float]:
    """PQ, SQ, RQ of one category."""
    sq = tally.iou / tally.matched if tally.matched else 0.0
    rq = tally.matched / (tally.matched + tally.false_found / 2 + tally.missed / 2)
    return sq * rq, sq, rq


def matches(
    found_HW: Ids, found: Sequence[SegmentInfo], truth_HW: Ids, truth: Sequence[SegmentInfo]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """IoU of matched pairs [T, P], 0 for others; and which predictions are excused if they match nothing [P].

    A pair matches if it is of one category and has IoU above 0.5, in which the union leaves out pixels that are void in
    the truth: no segment can then match twice. Crowds of the truth match nothing. A prediction with more than half of
    its pixels on void or on crowds of its category is excused. Numbers that no list has count as void.
    """
    if found_HW.shape != truth_HW.shape:
        raise UserError(
            f"a prediction of {found_HW.shape[1]} x {found_HW.shape[0]} pixels cannot be compared with a truth of "
            f"{truth_HW.shape[1]} x {truth_HW.shape[0]}: predict at the size of the stored image."
        )
    places_T, places_P = _places(truth_HW, truth), _places(found_HW, found)
    rows, columns = len(truth) + 1, len(found) + 1
    shared = np.bincount((places_T * columns + places_P).ravel(), minlength=rows * columns).reshape(rows, columns)
    inter_TP, area_T, area_P = shared[1:, 1:], shared[1:].sum(1), shared[:, 1:].sum(0)
    void_P = shared[0, 1:]
    union_TP = area_T[:, None] + (area_P - void_P) - inter_TP
    same_TP = np.array([[t.category == p.category for p in found] for t in truth], bool).reshape(inter_TP.shape)
    crowd_T = np.array([one.crowd for one in truth], bool)
    iou_TP = inter_TP / np.maximum(union_TP, 1) * same_TP
    excused_P = 2 * (void_P + (inter_TP * (same_TP & crowd_T[:, None])).sum(0)) > area_P
    return np.where((iou_TP > 0.5) & ~crowd_T[:, None], iou_TP, 0.0), excused_P


def _places(ids_HW: Ids, segments: Sequence[SegmentInfo]) -> Ids:
    """Which of the segments each pixel is in, from 1; 0 for none."""
    numbers = np.array([VOID, *(one.number for one in segments)], np.int64)
    order = np.argsort(numbers, kind="stable")
    where = np.clip(np.searchsorted(numbers[order], ids_HW), 0, len(numbers) - 1)
    return np.where(numbers[order][where] == ids_HW, order[where], 0)
