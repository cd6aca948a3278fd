"""The annotate producer: a chain of models from photographs to masks with texts (UniLSeg, section 3.3).

    unlabelled: caption of the photograph -> mask of the caption
    boxes:      box -> mask, and the crop's caption
    tags:       tags -> boxes of each -> masks of the boxes -> their union; the text is "all {tag}"

Every pair is scored by how well mask and text fit; scores are stored raw, and nothing is left out for them here.

Shape legend: n pairs of a photograph, h w its pixels as decoded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from ....schemas.labels.annotate import AnnotateConfig
from ....schemas.labels.base import DecodeConfig
from ....schemas.records import ImageRecord, ImageRef, MaskSet
from ...decode import DecodedImage
from ...device import DTYPES
from ...paste import Frame, paste
from ...pixels import Shape
from ...referring.prompts import all_of
from ..contract import Admit, PixelBatch
from .filter import region_of, tidy
from .roles import BoxDetector, Captioner, Floats, MaskSegmenter, Matcher, Pixels, Referrer, Tagger

NAN = float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """The models of a branch; the others are None. `boxes` are XYWH [n, 4] of photographs by their names."""

    tagger: Tagger | None = None
    box_detector: BoxDetector | None = None
    mask_segmenter: MaskSegmenter | None = None
    captioner: Captioner | None = None
    referrer: Referrer | None = None
    matcher: Matcher | None = None
    boxes: Mapping[str, Floats] = field(default_factory=dict)
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


@dataclass(slots=True, eq=False)
class Found:
    """A mask in the making: probabilities [h, w], its text, and where it came from (boxes as decoded)."""

    shares: Floats
    text: str
    score: float
    tag: str = ""
    label: int = -1
    boxes: Floats = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    detector_score: float = NAN
    segmenter_iou: float = NAN
    text_score: float = NAN


@dataclass(frozen=True, slots=True, eq=False)
class Annotated:
    """Pairs of each photograph of a batch, in host memory."""

    found: list[list[Found]]

    def wait(self) -> None:
        """See `contract.Work`: nothing is on its way."""


class Movable(Protocol):
    """A model that can be put on a device."""

    def to(self, device: torch.device, dtype: torch.dtype, /) -> Any:
        """Where and in which arithmetic it computes."""
        ...


class AnnotateProducer:
    """See `contract.Producer`. What is made of a photograph depends on it and its name alone."""

    memory_key = "annotate.batch_size"

    def __init__(self, config: AnnotateConfig, chain: Chain, admit: Admit, device: torch.device) -> None:
        assert config.annotate.precision != "auto"
        self.device, self.batch_size = device, config.annotate.batch_size
        self.decode: DecodeConfig = config.decode
        self.admit = admit
        self._config, self._chain = config, chain
        models: list[Movable] = list(chain.roles().values())
        for model in models:
            model.to(device, DTYPES[config.annotate.precision])

    def forward(self, batch: PixelBatch) -> Annotated:
        """See `contract.Producer`."""
        images = [one.pixels for one in batch.images]
        branch = self._config.annotate.branch
        if branch == "unlabelled":
            found = self._unlabelled(images)
        elif branch == "boxes":
            found = [self._boxes(i, batch) for i in range(len(images))]
        else:
            found = self._tags(images)
        kept = [[one for one in some if self._is_pair(one)] for some in found]
        self._score(images, kept)
        for some in kept:
            some.sort(key=lambda one: -one.score)
        return Annotated(kept)

    def record(self, work: Annotated, i: int, ref: ImageRef, image: DecodedImage) -> ImageRecord:
        """See `contract.Producer`."""
        found = work.found[i]
        size, stored = (image.pixels.shape[0], image.pixels.shape[1]), (image.height, image.width)
        masks = None
        if found:
            maps = np.stack([one.shares for one in found])
            pasted = paste(maps, None, Frame(size, size, stored), threshold=self._config.annotate.threshold)
            kept = [found[place] for place in pasted.kept]
            scale = np.array([stored[1] / size[1], stored[0] / size[0]] * 2, np.float32)
            masks = MaskSet(
                counts=pasted.counts,
                bbox=pasted.bbox,
                area=pasted.area,
                score=np.array([one.score for one in kept], np.float32),
                source=self._config.annotate.branch,
                extra={
                    "texts": [[one.text] for one in kept],
                    "text_scores": [[one.text_score] for one in kept],
                    "label": np.array([one.label for one in kept], np.int32),
                    "tag": [one.tag for one in kept],
                    "boxes": [(one.boxes * scale).ravel().tolist() for one in kept],
                    "detector_score": np.array([one.detector_score for one in kept], np.float32),
                    "segmenter_iou": np.array([one.segmenter_iou for one in kept], np.float32),
                },
            )
        return ImageRecord(
            image_id=ref.image_id,
            file_name=ref.file_name,
            status="ok" if masks is not None and len(masks) else "empty",
            width=image.width,
            height=image.height,
            exif_orientation=image.exif_orientation,
            resized_width=size[1],
            resized_height=size[0],
            sha256=image.sha256,
            masks=masks if masks is not None and len(masks) else None,
        )

    def close(self) -> None:
        """See `contract.Producer`."""

    def _unlabelled(self, images: Sequence[Pixels]) -> list[list[Found]]:
        captioner, referrer = self._chain.captioner, self._chain.referrer
        assert captioner is not None
        assert referrer is not None
        found: list[list[Found]] = []
        for image, caption in zip(images, captioner.captions(images), strict=True):
            text = self._tidy(caption)
            found.append([])
            if text:
                shares = referrer.refer(image, [text])[0]
                found[-1].append(Found(shares, text, _confidence(shares, self._inside(shares))))
        return found

    def _boxes(self, i: int, batch: PixelBatch) -> list[Found]:
        captioner, segmenter = self._chain.captioner, self._chain.mask_segmenter
        assert captioner is not None
        assert segmenter is not None
        image = batch.images[i]
        given = self._chain.boxes.get(batch.refs[i].file_name)
        if given is None:
            return []
        boxes_n4 = usable_boxes(given, image, self._config.boxes.min_side)
        crops = [cut(image.pixels, box) for box in boxes_n4]
        captions = [self._tidy(one) for one in captioner.captions(crops)] if crops else []
        if self._config.boxes.on_crop:
            shares, ious = self._on_crops(image.pixels, boxes_n4, crops)
        else:
            shares, ious = segmenter.masks(image.pixels, boxes_n4)
        return [
            Found(one, text, float(iou), boxes=box[None], segmenter_iou=float(iou))
            for one, text, iou, box in zip(shares, captions, ious, boxes_n4, strict=True)
            if text
        ]

    def _on_crops(self, image: Pixels, boxes_n4: Floats, crops: Sequence[Pixels]) -> tuple[Floats, Floats]:
        """Masks of crops, each prompted with all of it, put where the crops were."""
        segmenter = self._chain.mask_segmenter
        assert segmenter is not None
        shares = np.zeros((len(crops), *image.shape[:2]), np.float32)
        ious = np.zeros(len(crops), np.float32)
        for place, (box, crop) in enumerate(zip(boxes_n4, crops, strict=True)):
            height, width = crop.shape[:2]
            part, iou = segmenter.masks(crop, np.array([[0, 0, width, height]], np.float32))
            left, top = int(box[0]), int(box[1])
            shares[place, top : top + height, left : left + width] = part[0]
            ious[place] = iou[0]
        return shares, ious

    def _tags(self, images: Sequence[Pixels]) -> list[list[Found]]:
        tagger, detector, segmenter = self._chain.tagger, self._chain.box_detector, self._chain.mask_segmenter
        assert tagger is not None
        assert detector is not None
        assert segmenter is not None
        found: list[list[Found]] = []
        for image, labels in zip(images, tagger.tags(images), strict=True):
            words = [tagger.vocabulary[label] for label in labels]
            boxes = detector.boxes(image, words)
            whole = np.concatenate([one.xyxy for one in boxes]) if boxes else np.zeros((0, 4), np.float32)
            shares, ious = segmenter.masks(image, whole)
            found.append([])
            start = 0
            for label, word, one in zip(labels, words, boxes, strict=True):
                mine = slice(start, start + len(one.scores))
                start = mine.stop
                if len(one.scores):
                    best = float(one.scores.max())
                    union, iou = shares[mine].max(0), float(ious[mine].mean())
                    found[-1].append(Found(union, self._tidy(all_of(word)), best, word, label, one.xyxy, best, iou))
        return found

    def _score(self, images: Sequence[Pixels], found: Sequence[Sequence[Found]]) -> None:
        matcher = self._chain.matcher
        pairs = [(image, one) for image, some in zip(images, found, strict=True) for one in some]
        if matcher is None or not pairs:
            return
        size = max(1, self.batch_size) * 4
        for start in range(0, len(pairs), size):
            some = pairs[start : start + size]
            regions = [region_of(image, self._inside(one.shares)) for image, one in some]
            for (_, one), score in zip(some, matcher.match(regions, [one.text for _, one in some]), strict=True):
                one.text_score = float(score)

    def _is_pair(self, one: Found) -> bool:
        share = self._inside(one.shares).mean()
        return bool(0 < share <= self._config.annotate.largest and np.isfinite(one.score))

    def _inside(self, shares_hw: Floats) -> npt.NDArray[np.bool_]:
        return shares_hw > np.float32(self._config.annotate.threshold)

    def _tidy(self, text: str) -> str:
        return tidy(text, self._config.annotate.caption_words)


def usable_boxes(given_n4: Floats, image: DecodedImage, min_side: int) -> Floats:
    """XYWH of the stored photograph to XYXY as decoded: cut at its borders, without those that are small by then."""
    x, y, w, h = given_n4.T
    corners = np.stack([x, y, x + w, y + h], 1)
    limits = np.array([image.width, image.height] * 2, np.float32)
    corners = np.minimum(np.maximum(np.nan_to_num(corners, nan=-1.0), 0), limits)
    sides = corners[:, 2:] - corners[:, :2]
    kept = corners[(sides >= min_side).all(1)]
    height, width = image.pixels.shape[:2]
    scale = np.array([width / image.width, height / image.height] * 2, np.float32)
    scaled: Floats = (kept * scale).astype(np.float32)
    return scaled


def cut(image_hw3: Pixels, box_4: Floats) -> Pixels:
    """The pixels that a box touches."""
    left, top = int(box_4[0]), int(box_4[1])
    right, bottom = max(left + 1, int(np.ceil(box_4[2]))), max(top + 1, int(np.ceil(box_4[3])))
    return np.ascontiguousarray(image_hw3[top:bottom, left:right])


def _confidence(shares_hw: Floats, inside_hw: npt.NDArray[np.bool_]) -> float:
    """The mean probability within a mask."""
    return float(shares_hw[inside_hw].mean()) if inside_hw.any() else 0.0


def admit_all(image: DecodedImage) -> Shape:
    """Every image, at its own size."""
    return image.pixels.shape[0], image.pixels.shape[1]
