"""Grids of SOLO that fit a file of annotations."""

from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from ..stages.evaluate import read_annotations
from ..stages.fit_grid import Boxes, GridFit, fit_grid


def fit_grid_to(gt: Path, short_side: int, long_side: int) -> GridFit:
    """`fit_grid` on the objects of a COCO file, with masks or boxes alone. Raises UserError."""
    images, _ = read_annotations(gt, boxes_alone=True)
    boxes = []
    for one in images.values():
        tight = np.array([coco_mask.toBbox(mask) for mask in one.masks], np.float64).reshape(-1, 4)
        tight[:, 2:] += tight[:, :2]
        boxes.append(Boxes(tight, (one.height, one.width)))
    return fit_grid(boxes, short_side=short_side, long_side=long_side)
