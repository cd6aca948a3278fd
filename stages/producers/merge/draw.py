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
    outside = inside_KN.shape[1]  # before the first pixel and behind the last
    label_R = np.concatenate([[outside], flat[first], [outside]])
    bounds = np.append(first, flat.size)
    edges, owners = [], []
    for k, inside_N in enumerate(inside_KN):
        inside_R = np.append(inside_N, False).take(label_R)
        edge = np.flatnonzero(inside_R[1:] != inside_R[:-1])
        edges.append(edge)
        owners.append(np.full(len(edge) // 2, k))
    edge, owner = np.concatenate(edges), np.concatenate(owners)
    heads = np.flatnonzero(np.diff(owner, prepend=-1))
    return MaskRuns(owner[heads], heads, bounds[edge[::2]], bounds[edge[1::2]], height, width)


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
