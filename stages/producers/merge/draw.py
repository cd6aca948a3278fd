"""From sets of superpixels to COCO masks of the stored image, without drawing them one by one.

Shape legend: H W pixels of the decoded image, N leaves, K masks, R runs.
"""

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from ...encode import MaskRuns
from ..contract import Prior
from .superpixels import Ints, Labels

Sets = npt.NDArray[np.bool_]


def runs_of_sets(inside_KN: Sets, labels_HW: Labels, height: int, width: int) -> MaskRuns:
    """Runs of sets of leaves, none of them empty, in the stored image; each of its pixels takes the nearest label."""
    rows = (np.arange(height) * 2 + 1) * labels_HW.shape[0] // (2 * height)
    columns = (np.arange(width) * 2 + 1) * labels_HW.shape[1] // (2 * width)
    flat = labels_HW[rows[:, None], columns[None]].T.ravel()
    first = np.flatnonzero(np.diff(flat, prepend=-1))  # runs of one label, column by column
    bounds = np.append(first, flat.size)
    inside_KR = inside_KN[:, flat[first]]
    edges_KR = np.diff(inside_KR.astype(np.int8), axis=1, prepend=0, append=0)
    owner, start = np.nonzero(edges_KR > 0)
    _, end = np.nonzero(edges_KR < 0)
    heads = np.flatnonzero(np.diff(owner, prepend=-1))
    return MaskRuns(owner[heads], heads, bounds[start], bounds[end], height, width)


def prior_sets(prior: Prior, labels_HW: Labels, height: int, width: int) -> Sets:
    """The leaves that lie in each mask of the stored image by more than half [K, N]."""
    count = int(labels_HW.max()) + 1
    sizes_N: Ints = np.bincount(labels_HW.ravel(), minlength=count)
    rows = (np.arange(labels_HW.shape[0]) * 2 + 1) * height // (2 * labels_HW.shape[0])
    columns = (np.arange(labels_HW.shape[1]) * 2 + 1) * width // (2 * labels_HW.shape[1])
    inside = np.zeros((len(prior), count), bool)
    for k, counts in enumerate(prior.counts):
        mask_HW = coco_mask.decode({"size": [height, width], "counts": counts})[rows[:, None], columns[None]]
        inside[k] = 2 * np.bincount(labels_HW[mask_HW > 0], minlength=count) > sizes_N
    return inside
