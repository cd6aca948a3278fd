"""Boxes that are not those of their masks, and layers of pixels, through augmentation."""

import numpy as np
import torch

from saliency_prompt.schemas.training.sections import DataConfig
from saliency_prompt.stages.instances.augment import Augmented
from saliency_prompt.stages.instances.order import TrainingOrder
from saliency_prompt.stages.instances.samples import Sample, collate, make_sample, tight_boxes

SIDE = 64
OWN = [10.0, 20.0, 40.0, 50.0]


class One:
    """An image whose second object has a mask smaller than its box."""

    def __init__(self, *, own: bool = True) -> None:
        self.own = own

    def __len__(self) -> int:
        return 1

    def load(self, index: int, size: tuple[int, int]) -> Sample:  # noqa: ARG002
        masks = np.zeros((2, SIDE, SIDE), np.uint8)
        masks[0, 2:12, 40:60] = 1
        masks[1, 25:30, 15:25] = 1
        side = min(size)
        nearest = (np.arange(side) * SIDE) // side
        masks = masks[:, nearest][:, :, nearest]
        about = {"image_id": 1, "file_name": "a.png", "stored": (SIDE, SIDE)}
        pixels = np.full((side, side, 3), 90, np.uint8)
        layers = {"whole": masks.max(0) * np.uint8(7), "each": masks * np.uint8(200)}
        own = {1: [value * side / SIDE for value in OWN]}
        return make_sample(pixels, masks, [0, 1], about, boxes=own if self.own else None, layers=layers)


def moved(config: DataConfig, seed: int, *, own: bool = True) -> Sample:
    return Augmented(One(own=own), config, seed)[0, 0]


def test_a_box_of_its_own_is_mirrored_beside_its_mask() -> None:
    _, target = moved(DataConfig(flip=1.0, short_side=SIDE, long_side=SIDE), 0)
    boxes = torch.as_tensor(target["boxes"])
    assert boxes[1].tolist() == [SIDE - 40, 20, SIDE - 10, 50]
    assert torch.equal(boxes[:1], tight_boxes(torch.as_tensor(target["masks"]))[:1])


def test_crops_scale_and_cut_it_and_change_nothing_else() -> None:
    config = DataConfig(short_side=SIDE, long_side=SIDE, jitter=(0.7, 2.0))
    cut = 0
    for seed in range(30):
        image, target = moved(config, seed)
        other_image, other = moved(config, seed, own=False)
        assert torch.equal(image, other_image)  # the same draws with boxes and without
        boxes = torch.as_tensor(target["boxes"])
        assert bool(((boxes >= 0) & (boxes <= SIDE)).all())
        assert bool((boxes[:, 2:] - boxes[:, :2] >= 1).all())
        tight = tight_boxes(torch.as_tensor(target["masks"]))
        seen, own = target["has_mask"], target["own_box"]
        assert bool((boxes[seen, :2] <= tight[seen, :2] + 1.5).all())
        assert bool((boxes[seen, 2:] >= tight[seen, 2:] - 1.5).all())
        assert torch.equal(boxes[~own], tight[~own])
        assert set(other["labels"].tolist()) <= set(target["labels"].tolist())
        cut += bool((~seen).any())
        for name, factor in (("whole", 7), ("each", 200)):
            layer, masks = torch.as_tensor(target["layers"][name]), torch.as_tensor(target["masks"])
            if name == "each":
                assert torch.equal(layer, masks * factor)
            else:
                assert bool((layer[(masks != 0).any(0)] == factor).all())
    assert cut  # some crops lose the mask and keep part of the box


def test_padding_of_layers_is_zero() -> None:
    sample = One().load(0, (SIDE, SIDE))
    batch = collate([sample], multiple=96)
    assert batch.layers[0]["whole"].shape == (96, 96)
    assert int(batch.layers[0]["whole"][SIDE:].sum()) == 0
    assert batch.layers[0]["each"].shape == (2, 96, 96)


def test_repeat_factors_fill_an_epoch_in_an_order_of_their_own() -> None:
    factors = np.array([1.0, 3.0, 1.0])
    order = TrainingOrder(3, 1, 10, 0, 0, 10, 0, 1, factors)
    places = [place for step in order for place, _ in step]
    assert np.bincount(places).tolist() == [2, 6, 2]
    assert places == [place for step in order for place, _ in step]
    plain = TrainingOrder(3, 1, 9, 0, 0, 9, 0, 1)
    assert np.bincount([place for step in plain for place, _ in step]).tolist() == [3, 3, 3]
