"""A world in memory to pre-train and fine-tune small models in: scenes, three sources of masks, a remembering backbone.

The backbone is frozen and its maps of an image are computed once, so that a step costs what its heads cost. Masks of
every source have seed vectors by one rule, that of `import-masks`: the unit mean of the backbone's c5 under the mask.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from scenes import write_scenes
from torch import Tensor

from saliency_prompt import PseudoLabelDataset
from saliency_prompt.models.backbones.base import Backbone
from saliency_prompt.models.detector import Detector, Limits, Targets
from saliency_prompt.models.queries.prompts import pool_masked
from saliency_prompt.pipeline.evaluate import evaluate_dataset
from saliency_prompt.pipeline.generate import Job, generate
from saliency_prompt.pipeline.progress import Display
from saliency_prompt.pipeline.sources import open_source
from saliency_prompt.schemas.load import load_config
from saliency_prompt.stages.backbone import load_backbone
from saliency_prompt.stages.evaluate import evaluate_coco
from saliency_prompt.stages.instances.labelled import CocoInstances
from saliency_prompt.stages.instances.results import as_results, encode_found, once_each
from saliency_prompt.stages.instances.samples import tight_boxes

CPU = torch.device("cpu")
RECTANGLES = 10  # of a "random" image, as UP-DETR draws them
LABELLING = [
    "decode.short_side=256",
    "decode.long_side=256",
    "filters.min_score=0.3",
    "filters.min_center_y=null",
]


class Remembering(Backbone):
    """A frozen backbone that computes the maps of an image once."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.inner = backbone.eval().requires_grad_(False)
        self.channels, self.strides = backbone.channels, backbone.strides
        self.mean, self.std = backbone.mean, backbone.std
        self._known: dict[int, dict[str, Tensor]] = {}

    @torch.no_grad()
    def forward(self, images_B3HW: Tensor, level: str = "c5") -> dict[str, Tensor]:
        """See `Backbone`."""
        keys = [hash(image.numpy().tobytes()) for image in images_B3HW]
        for key, image in zip(keys, images_B3HW, strict=True):
            if key not in self._known:
                self._known[key] = self.inner(image[None], level)
        return {name: torch.cat([self._known[key][name] for key in keys]) for name in self._known[keys[0]]}


class World:
    """Scenes without labels, with labels, and held out; samples are (normalised image, targets, seeds)."""

    def __init__(self, work: Path, weights: str, labeller: str, counts: tuple[int, int, int], side: int) -> None:
        self.backbone = Remembering(load_backbone(weights).module)
        self.side = side
        unlabelled, labelled, self.held_out = (work / part for part in ("unlabelled", "labelled", "held_out"))
        for seed, (folder, count) in enumerate(zip((unlabelled, labelled, self.held_out), counts, strict=True), 1):
            if not (folder / "annotations.json").exists():
                write_scenes(folder, seed, count)
        photos, gt = unlabelled / "images", unlabelled / "annotations.json"
        self.quality = label(labeller, photos, gt, work / "dataset", LABELLING)
        truth = self.read(CocoInstances(str(photos), str(gt), size=(side, side)))
        found = PseudoLabelDataset(str(work / "dataset"), size=(side, side), vectors=(), min_masks=1)
        self.sources = {
            "saliency": self._seeded(self._one_class(self.read(found))),
            "good": self._seeded(self._one_class(truth)),
            "random": self._seeded([(image, rectangles(image, n)) for n, (image, _) in enumerate(truth)]),
        }
        self.labelled = self.read(
            CocoInstances(str(labelled / "images"), str(labelled / "annotations.json"), size=(side, side))
        )

    def read(self, data: Any) -> list[tuple[Tensor, Targets]]:
        """All samples of a data set, normalised."""
        return read_samples(data, self.backbone, self.side)

    @staticmethod
    def _one_class(samples: list[tuple[Tensor, Targets]]) -> list[tuple[Tensor, Targets]]:
        return [(image, make_targets(one.masks, torch.zeros_like(one.labels))) for image, one in samples]

    def _seeded(self, samples: list[tuple[Tensor, Targets]]) -> list[tuple[Tensor, Targets, Tensor]]:
        made = []
        for image, one in samples:
            maps = self.backbone(image[None])["c5"]
            pooled = pool_masked(maps, [one.masks], self.backbone.strides["c5"])[0][: len(one.labels)]
            made.append((image, one, F.normalize(pooled, dim=1)))
        return made

    @torch.inference_mode()
    def judge(self, host: Detector) -> dict[str, float]:
        """Mask AP with and without classes, and AR, on the held-out scenes."""
        gt = self.held_out / "annotations.json"
        data = CocoInstances(str(self.held_out / "images"), str(gt), size=(self.side, self.side), empty=True)
        samples, refs, size = self.read(data), data.refs(), (self.side, self.side)
        results: list[dict[str, Any]] = []
        host.eval()
        for first in range(0, len(samples), 16):
            chosen = slice(first, first + 16)
            images = torch.stack([image for image, _ in samples[chosen]])
            found = host.find(images, [size] * len(images), Limits(host.most))
            for one, ref in zip(found, refs[chosen], strict=True):
                stored = (ref.height, ref.width)
                encoded = encode_found(one, padded=size, resized=size, stored=stored)
                results += as_results(encoded, ref.image_id, data.categories)
        ids = data.image_ids
        classes = evaluate_coco(gt, results, ("segm",), class_agnostic=False, image_ids=ids)["segm"]
        agnostic = evaluate_coco(gt, once_each(results), ("segm",), image_ids=ids)["segm"]
        numbers = {
            "AP": classes["AP"],
            "AP50": classes["AP50"],
            "AP_agnostic": agnostic["AP"],
            "AR_agnostic": agnostic["AR100"],
        }
        return {name: round(float(value or 0), 3) for name, value in numbers.items()}


def read_samples(data: Any, backbone: Backbone, side: int) -> list[tuple[Tensor, Targets]]:
    """Normalised images [3, side, side] of a data set with their objects, but those too small to be seen."""
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (backbone.mean, backbone.std))
    samples = []
    for place in range(len(data)):
        image, target = data.load(place, (side, side))
        masks = torch.as_tensor(target["masks"]).to(torch.uint8)
        keep = (masks != 0).flatten(1).any(1)
        targets = Targets(
            masks[keep],
            target["labels"][keep],
            tight_boxes(masks[keep]),
            target["scores"][keep],
            target["has_mask"][keep],
        )
        samples.append(((torch.as_tensor(image).float() - mean) / std, targets))
    return samples


def make_targets(masks_MHW: Tensor, labels_M: Tensor) -> Targets:
    """Objects with tight boxes."""
    return Targets(masks_MHW, labels_M, tight_boxes(masks_MHW), torch.ones(len(labels_M)))


def rectangles(image_3HW: Tensor, seed: int) -> Targets:
    """Random boxes as objects, whatever is in the image (UP-DETR's pre-training)."""
    height, width = image_3HW.shape[1:]
    rng = np.random.default_rng(seed)
    masks = np.zeros((RECTANGLES, height, width), np.uint8)
    for one in masks:
        h, w = (rng.uniform(0.1, 0.9, 2) * (height, width)).astype(int)
        y, x = int(rng.uniform(0, height)), int(rng.uniform(0, width))
        one[max(0, y - h // 2) : y + h // 2 + 1, max(0, x - w // 2) : x + w // 2 + 1] = 1
    return make_targets(torch.from_numpy(masks), torch.zeros(RECTANGLES, dtype=torch.int64))


def flipped(image_3HW: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
    """Both mirrored."""
    return image_3HW.flip(-1), make_targets(targets.masks.flip(-1), targets.labels)


def label(labeller: str, images: Path, gt: Path, out: Path, overrides: Sequence[str]) -> dict[str, float]:
    """Make a data set with the pipeline; what its masks score against annotations that it has not seen."""
    config = load_config(overrides=[f"features.weights={labeller}", *overrides])
    with Display(Console(quiet=True)) as display:
        dataset, _ = generate(open_source(str(images)), Job(str(out), config, CPU), display, threading.Event())
    scores = evaluate_dataset(dataset, gt)["segm"]
    return {name: round(float(scores[name] or 0), 2) for name in ("AP", "AP50", "AR10", "AR100")}
