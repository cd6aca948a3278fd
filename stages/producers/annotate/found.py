"""Pairs in the making, and the models of a chain.

Shape legend: n pairs of a photograph, h w its pixels as decoded.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from ....schemas.records import ImageRef
from ...decode import DecodedImage
from ..contract import Prior
from .roles import BoxDetector, Captioner, Floats, MaskSegmenter, Matcher, Pixels, Referrer, Tagger

NAN = float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """Boxes of a photograph from outside: XYWH [n, 4] as stored, and the name of each one's category."""

    boxes: Floats
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """The models of the steps that are done here; the others are None. `boxes` are by the photographs' names."""

    tagger: Tagger | None = None
    box_detector: BoxDetector | None = None
    mask_segmenter: MaskSegmenter | None = None
    captioner: Captioner | None = None
    referrer: Referrer | None = None
    matcher: Matcher | None = None
    boxes: Mapping[str, Given] = field(default_factory=dict)
    vocabulary_sha256: str = ""

    def roles(self) -> dict[str, Any]:
        """Models by role."""
        named = {
            "tagger": self.tagger,
            "box_detector": self.box_detector,
            "mask_segmenter": self.mask_segmenter,
            "captioner": self.captioner,
            "referrer": self.referrer,
            "matcher": self.matcher,
        }
        return {role: model for role, model in named.items() if model is not None}


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """A mask as another data set has it: RLE, XYWH, pixels."""

    counts: bytes
    bbox: Floats
    area: int


@dataclass(slots=True, eq=False)
class Found:
    """A mask in the making: probabilities [h, w], its text, and where it came from (boxes as decoded).

    `stored` is there as long as the mask is still that of the data set that this one is made from.
    """

    shares: Floats
    text: str
    score: float
    tag: str = ""
    label: int = -1
    boxes: Floats = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    detector_score: float = NAN
    segmenter_iou: float = NAN
    text_score: float = NAN
    stored: Stored | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Photograph:
    """One of a batch: as decoded, in full, which one, and the masks that it had."""

    pixels: Pixels
    image: DecodedImage
    ref: ImageRef
    prior: Prior | None

    @property
    def scale(self) -> Floats:
        """[4]: from XYXY as decoded to XYXY as stored."""
        height, width = self.pixels.shape[:2]
        return np.array([self.image.width / width, self.image.height / height] * 2, np.float32)


def from_prior(photograph: Photograph) -> list[Found]:
    """What another data set holds of a photograph; columns that it lacks stay as for a new pair."""
    prior, image = photograph.prior, photograph.image
    if prior is None:
        return []
    height, width = photograph.pixels.shape[:2]
    found = []
    for i in range(len(prior)):
        mask = coco_mask.decode({"size": [image.height, image.width], "counts": prior.counts[i]})
        if mask.shape != (height, width):
            mask = cv2.resize(mask * np.float32(1), (width, height), interpolation=cv2.INTER_AREA) >= 0.5
        row = {name: values[i] for name, values in prior.columns.items()}
        texts, scores = row.get("texts") or [""], row.get("text_scores") or [NAN]
        boxes = np.array(row.get("boxes", []), np.float32).reshape(-1, 4) / photograph.scale
        found.append(
            Found(
                mask.astype(np.float32),
                texts[0],
                float(prior.score[i]),
                row.get("tag", ""),
                row.get("label", -1),
                boxes.astype(np.float32),
                row.get("detector_score", NAN),
                row.get("segmenter_iou", NAN),
                scores[0],
                Stored(prior.counts[i], prior.bbox[i], int(coco_mask.area(_rle(prior, i, image)))),
            )
        )
    return found


def _rle(prior: Prior, i: int, image: DecodedImage) -> dict[str, Any]:
    return {"size": [image.height, image.width], "counts": prior.counts[i]}


def usable_boxes(given_n4: Floats, image: DecodedImage, min_side: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    """XYWH of the stored photograph to XYXY as decoded: cut at its borders, without those that are small by then.

    And the places of those that stay.
    """
    x, y, w, h = given_n4.T
    corners = np.stack([x, y, x + w, y + h], 1)
    limits = np.array([image.width, image.height] * 2, np.float32)
    corners = np.minimum(np.maximum(np.nan_to_num(corners, nan=-1.0), 0), limits)
    sides = corners[:, 2:] - corners[:, :2]
    kept = np.flatnonzero((sides >= min_side).all(1))
    height, width = image.pixels.shape[:2]
    scale = np.array([width / image.width, height / image.height] * 2, np.float32)
    scaled: Floats = (corners[kept] * scale).astype(np.float32)
    return scaled, kept


def cut(image_hw3: Pixels, box_4: Floats) -> Pixels:
    """The pixels that a box touches."""
    left, top = int(box_4[0]), int(box_4[1])
    right, bottom = max(left + 1, int(np.ceil(box_4[2]))), max(top + 1, int(np.ceil(box_4[3])))
    return np.ascontiguousarray(image_hw3[top:bottom, left:right])


def box_of(mask_hw: npt.NDArray[np.bool_]) -> Floats:
    """XYXY [4] around a mask that has pixels."""
    rows, columns = np.flatnonzero(mask_hw.any(1)), np.flatnonzero(mask_hw.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
