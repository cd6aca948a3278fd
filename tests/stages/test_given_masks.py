import numpy as np
from pycocotools import mask as coco_mask

from saliency_prompt.stages.given_masks import box_means, cells_at, mean_under, unit_length

RANDOM = np.random.default_rng(0)


def slow_mean(mask, features):
    """Pixel by pixel: each has the feature of the cell it lies in."""
    d, h, w = features.shape
    total = np.zeros(d)
    ys, xs = np.nonzero(mask)
    for y, x in zip(ys, xs, strict=True):
        total += features[:, y * h // mask.shape[0], x * w // mask.shape[1]]
    return total / len(ys)


def test_means_under_masks_and_in_boxes_are_those_of_their_pixels() -> None:
    features = RANDOM.normal(size=(5, 4, 6)).astype(np.float32)
    masks = [np.asfortranarray(RANDOM.random((40, 60)) < share, np.uint8) for share in (0.5, 0.01)]
    one = np.zeros((40, 60), np.uint8, order="F")
    one[13, 17] = 1
    masks.append(one)
    rles = [coco_mask.encode(mask) for mask in masks]
    expected = np.stack([slow_mean(mask, features) for mask in masks])
    np.testing.assert_allclose(mean_under(rles, features), expected, atol=1e-5)

    boxes = np.array([[3, 5, 33, 22], [59, 39, 1, 1], [0, 0, 60, 40]], np.float32)
    filled = []
    for x, y, w, h in boxes.astype(int):
        mask = np.zeros((40, 60), np.uint8)
        mask[y : y + h, x : x + w] = 1
        filled.append(slow_mean(mask, features))
    np.testing.assert_allclose(box_means(boxes, (40, 60), features), np.stack(filled), atol=1e-5)


def test_cells_at_places_and_unit_length() -> None:
    features = RANDOM.normal(size=(3, 4, 6)).astype(np.float32)
    found = cells_at(np.array([[0.0, 0.0], [1.0, 1.0], [0.5, 0.3]]), features)
    np.testing.assert_array_equal(found, np.stack([features[:, 0, 0], features[:, 3, 5], features[:, 1, 3]]))
    np.testing.assert_allclose(np.linalg.norm(unit_length(found), axis=1), 1, atol=1e-6)
    assert (unit_length(np.zeros((1, 3), np.float32)) == 0).all()
