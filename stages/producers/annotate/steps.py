"""The steps of a chain, each with one model (the first of `tags` has two): from pairs in the making to the next.

    unlabelled: caption -> refer -> match        boxes: segment -> caption -> match
    tags:       ground -> segment -> match       masks: caption -> match

A pair without its mask yet has its boxes for one, or the whole photograph. One that comes to nothing is left out: an
empty mask, one of nearly all pixels, a caption without words.

Shape legend: n pairs or boxes of a photograph, h w its pixels as decoded.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ....schemas.labels.annotate import AnnotateConfig, Step
from ...referring.prompts import all_of
from .filter import region_of, tidy
from .found import Chain, Found, Photograph, box_of, cut, usable_boxes
from .roles import Floats, Pixels

Pairs = list[list[Found]]  # of each photograph


class Steps:
    """The steps under a configuration, with the models of a chain."""

    def __init__(self, config: AnnotateConfig, chain: Chain) -> None:
        self._config, self._chain = config, chain
        branch = config.annotate.branch
        self._do: dict[Step, Callable[[Sequence[Photograph], Pairs], Pairs]] = {
            "caption": self._caption_whole if branch == "unlabelled" else self._caption_parts,
            "refer": self._refer,
            "ground": self._ground,
            "segment": self._segment_given if branch == "boxes" else self._segment_found,
            "match": self._match,
        }

    def do(self, step: Step, photographs: Sequence[Photograph], found: Pairs) -> Pairs:
        """The pairs after a step; the first one of a branch gets none."""
        return self._do[step](photographs, found)

    def _caption_whole(self, photographs: Sequence[Photograph], found: Pairs) -> Pairs:
        del found
        captioner = self._chain.captioner
        assert captioner is not None
        texts = [self._tidy(text) for text in captioner.captions([one.pixels for one in photographs])]
        return [
            [Found(np.ones(one.pixels.shape[:2], np.float32), text, 1.0)] if text else []
            for one, text in zip(photographs, texts, strict=True)
        ]

    def _refer(self, photographs: Sequence[Photograph], found: Pairs) -> Pairs:
        referrer = self._chain.referrer
        assert referrer is not None
        for one, some in zip(photographs, found, strict=True):
            if some:
                for pair, shares in zip(some, referrer.refer(one.pixels, [pair.text for pair in some]), strict=True):
                    pair.shares, pair.stored = shares, None
                    pair.score = _confidence(shares, self._inside(shares))
        return self._pairs(found)

    def _segment_given(self, photographs: Sequence[Photograph], found: Pairs) -> Pairs:
        """Masks of the boxes given; without a captioner one of each category, all its boxes together."""
        del found
        made: Pairs = []
        for one in photographs:
            given = self._chain.boxes.get(one.ref.file_name)
            made.append([])
            if given is None:
                continue
            boxes_n4, kept = usable_boxes(given.boxes, one.image, self._config.boxes.min_side)
            shares, ious = self._masks(one.pixels, boxes_n4)
            if self._config.roles.captioner:
                made[-1] = [
                    Found(share, "", float(iou), boxes=box[None], segmenter_iou=float(iou))
                    for share, iou, box in zip(shares, ious, boxes_n4, strict=True)
                ]
                continue
            names = [given.names[place] for place in kept]
            for name in dict.fromkeys(filter(None, names)):
                mine = np.array([one == name for one in names])
                iou = float(ious[mine].mean())
                text = self._tidy(all_of(name))
                made[-1].append(Found(shares[mine].max(0), text, iou, name, boxes=boxes_n4[mine], segmenter_iou=iou))
        return self._pairs(made)

    def _ground(self, photographs: Sequence[Photograph], found: Pairs) -> Pairs:
        """Boxes of each tag; one without a box is left out."""
        del found
        tagger, detector = self._chain.tagger, self._chain.box_detector
        assert tagger is not None
        assert detector is not None
        made: Pairs = []
        for one, labels in zip(photographs, tagger.tags([one.pixels for one in photographs]), strict=True):
            words = [tagger.vocabulary[label] for label in labels]
            made.append([])
            for label, word, boxes in zip(labels, words, detector.boxes(one.pixels, words), strict=True):
                if len(boxes.scores):
                    best = float(boxes.scores.max())
                    whole = np.zeros(one.pixels.shape[:2], np.float32)
                    for left, top, right, bottom in boxes.xyxy:
                        whole[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))] = 1
                    text = self._tidy(all_of(word))
                    made[-1].append(Found(whole, text, best, word, label, boxes.xyxy, best))
        return made

    def _segment_found(self, photographs: Sequence[Photograph], found: Pairs) -> Pairs:
        """Of each tag the union of its boxes' masks."""
        for one, some in zip(photographs, found, strict=True):
            boxes = [pair.boxes for pair in some]
            shares, ious = self._masks(one.pixels, np.concatenate([np.zeros((0, 4), np.float32), *boxes]))
            start = 0
            for pair in some:
                mine = slice(start, start + len(pair.boxes))
                start = mine.stop
                pair.shares, pair.segmenter_iou, pair.stored = shares[mine].max(0), float(ious[mine].mean()), None
        return self._pairs(found)

    def _masks(self, image: Pixels, boxes_n4: Floats) -> tuple[Floats, Floats]:
        """Masks of boxes; `boxes.on_crop`: of crops, each prompted with all of it, put where the crops were."""
        segmenter = self._chain.mask_segmenter
        assert segmenter is not None
        if not self._config.boxes.on_crop or self._config.annotate.branch != "boxes":
            return segmenter.masks(image, boxes_n4)
        shares = np.zeros((len(boxes_n4), *image.shape[:2]), np.float32)
        ious = np.zeros(len(boxes_n4), np.float32)
        for place, box in enumerate(boxes_n4):
            crop = cut(image, box)
            height, width = crop.shape[:2]
            part, iou = segmenter.masks(crop, np.array([[0, 0, width, height]], np.float32))
            left, top = int(box[0]), int(box[1])
            shares[place, top : top + height, left : left + width] = part[0]
            ious[place] = iou[0]
        return shares, ious

    def _caption_parts(self, photographs: Sequence[Photograph], found: Pairs) -> Pairs:
        """A caption of the crop of each pair's box, or of its mask's."""
        captioner, size = self._chain.captioner, max(1, self._config.annotate.batch_size) * 4
        if captioner is None:
            return found
        pairs = [(one, pair) for one, some in zip(photographs, self._pairs(found), strict=True) for pair in some]
        for start in range(0, len(pairs), size):
            some_pairs = pairs[start : start + size]
            crops = [
                cut(one.pixels, pair.boxes[0] if len(pair.boxes) else box_of(self._inside(pair.shares)))
                for one, pair in some_pairs
            ]
            for (_, pair), text in zip(some_pairs, captioner.captions(crops), strict=True):
                pair.text, pair.text_score = self._tidy(text), float("nan")
        return [[pair for pair in some if pair.text] for some in self._pairs(found)]

    def _match(self, photographs: Sequence[Photograph], found: Pairs) -> Pairs:
        matcher, size = self._chain.matcher, max(1, self._config.annotate.batch_size) * 4
        pairs = [(one, pair) for one, some in zip(photographs, found, strict=True) for pair in some if pair.text]
        for start in range(0, len(pairs) if matcher is not None else 0, size):
            assert matcher is not None
            some_pairs = pairs[start : start + size]
            regions = [region_of(one.pixels, self._inside(pair.shares)) for one, pair in some_pairs]
            scores = matcher.match(regions, [pair.text for _, pair in some_pairs])
            for (_, pair), score in zip(some_pairs, scores, strict=True):
                pair.text_score = float(score)
        return found

    def _pairs(self, found: Pairs) -> Pairs:
        """Those whose mask is something, and not everything."""
        return [[pair for pair in some if self._is_pair(pair)] for some in found]

    def _is_pair(self, pair: Found) -> bool:
        share = self._inside(pair.shares).mean()
        return bool(0 < share <= self._config.annotate.largest and np.isfinite(pair.score))

    def _inside(self, shares_hw: Floats) -> npt.NDArray[np.bool_]:
        return shares_hw > np.float32(self._config.annotate.threshold)

    def _tidy(self, text: str) -> str:
        return tidy(text, self._config.annotate.caption_words)


def _confidence(shares_hw: Floats, inside_hw: npt.NDArray[np.bool_]) -> float:
    """The mean probability within a mask."""
    return float(shares_hw[inside_hw].mean()) if inside_hw.any() else 0.0
