"""Pseudo-masks that stand in for masks nobody drew: each box takes the mask that fills it best.

Shape legend: M boxes of an image, P pseudo-masks of it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

Rle = dict[str, Any]
MIN_IOU = 0.5


def match_boxes(
    boxes_M4: npt.NDArray[np.float64], pseudo_P4: npt.NDArray[np.float64], min_iou: float = MIN_IOU
) -> npt.NDArray[np.int64]:
    """Which pseudo-mask each box gets, -1 for none: [M]. Boxes are XYWH, those of pseudo-masks tight around them.

    Pairs are made by falling IoU, each box and each mask once, down to `min_iou`; of equals the earlier come first.
    """
    matched = np.full(len(boxes_M4), -1, np.int64)
    if not len(boxes_M4) or not len(pseudo_P4):
        return matched
    iou_MP = coco_mask.iou(boxes_M4.astype(np.float64), pseudo_P4.astype(np.float64), [0] * len(pseudo_P4))
    free = np.ones(len(pseudo_P4), bool)
    for pair in np.argsort(-iou_MP, axis=None, kind="stable"):
        box, mask = divmod(int(pair), len(pseudo_P4))
        if iou_MP[box, mask] < min_iou:
            break
        if matched[box] < 0 and free[mask]:
            matched[box], free[mask] = mask, False
    return matched


def stand_in(
    masks: Sequence[Rle],
    has_mask: Sequence[bool],
    pseudo: Sequence[Rle],
    scores: Sequence[float],
    min_iou: float = MIN_IOU,
) -> tuple[list[Rle], list[bool], list[float]]:
    """The objects of an image, those without a mask with a pseudo-mask where one fits: masks, has_mask and weights.

    Masks are compressed RLEs of one size; that of an object without one fills its box. A pseudo-mask is cut to the
    box and weighs its score; everything else weighs 1.
    """
    without = [place for place, known in enumerate(has_mask) if not known]
    boxes = [coco_mask.toBbox(masks[place]) for place in without]
    pseudo_boxes = [coco_mask.toBbox(mask) for mask in pseudo]
    shape = (-1, 4)
    matched = match_boxes(np.array(boxes).reshape(shape), np.array(pseudo_boxes).reshape(shape), min_iou)
    new_masks, known, weights = list(masks), list(has_mask), [1.0] * len(masks)
    for place, source in zip(without, matched.tolist(), strict=True):
        if source >= 0:
            new_masks[place] = coco_mask.merge([masks[place], pseudo[source]], intersect=True)
            known[place], weights[place] = True, float(scores[source])
    return new_masks, known, weights
