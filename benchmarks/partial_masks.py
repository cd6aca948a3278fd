"""ContrastMask on generated scenes: IoU of masks in given boxes, for shapes that had masks and shapes that had none.

    python benchmarks/partial_masks.py --work DIR --json F [--variants NAME ...] [--seeds 5] [--minutes 25]
    python benchmarks/partial_masks.py --work DIR --cost --json F

Ellipses and boxes are base classes, triangles novel ones. Under a seed every variant sees the same scenes in the same
order from the same fresh heads; the backbone is frozen. In the end boxes and classes are given, so that masks alone are
judged. `pseudo` variants give novel objects the masks that `lab-color` finds in their boxes; `everything` gives true
ones. What is in F already is not run again. `--cost` compares steps and inference with Mask R-CNN's instead.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from environment import describe, publish
from scenes import CLASSES, write_scenes
from sp_ordering import Size, draw, interval
from sp_world import CPU, LABELLING, Remembering, label, read_samples
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import project_masks_on_boxes

from saliency_prompt.models.backbones.registry import build_backbone
from saliency_prompt.models.detector import Limits, Targets, alone
from saliency_prompt.models.mask_rcnn.model import MaskRCNN, build
from saliency_prompt.pipeline.training.partial import read_pseudo_masks
from saliency_prompt.schemas.load import parse_settings
from saliency_prompt.schemas.training.contrastmask import CONTRASTMASK_PRESETS, ContrastMaskConfig, MaskRCNNConfig
from saliency_prompt.stages.backbone import load_backbone
from saliency_prompt.stages.instances.labelled import CocoInstances

BASE = 2  # classes with masks, the first ones
EPOCHS = 12  # that the steps stand for, in the contrast's warm-up
SCENES, JUDGED = 240, 80
SIDE = 128
SUPERVISIONS = ("base", "novel")
VARIANTS = ("baseline", "cam", "paper", "base", "novel", "pseudo baseline", "pseudo paper", "everything", "code_compat")
CLAIMS = (  # (better, worse) according to the paper; the last two it does not know
    ("cam", "baseline"),
    ("paper", "baseline"),
    ("paper", "cam"),
    ("paper", "base"),
    ("paper", "novel"),
    ("paper", "code_compat"),
    ("everything", "paper"),
    ("pseudo baseline", "baseline"),
    ("pseudo paper", "paper"),
)
Samples = list[tuple[Tensor, Targets]]


class Data:
    """Scenes to learn from with the masks of base classes, of all, or with stand-ins; and scenes to judge by."""

    def __init__(self, work: Path) -> None:
        self.backbone = Remembering(load_backbone("densecl-r18-mini").module)
        for seed, (name, count) in enumerate((("train", SCENES), ("held_out", JUDGED)), start=11):
            if not (work / name / "annotations.json").exists():
                write_scenes(work / name, seed, count)
        images, gt = work / "train" / "images", work / "train" / "annotations.json"
        self.quality = label("lab-color", images, gt, work / "dataset", LABELLING)
        pseudo, _ = read_pseudo_masks(str(work / "dataset"), gt)
        base = frozenset(range(BASE))
        self.base = self._read(work / "train", masked=base, boxes_alone=True)
        self.pseudo = self._read(work / "train", masked=base, boxes_alone=True, pseudo=pseudo)
        self.everything = self._read(work / "train")
        self.held_out = self._read(work / "held_out")

    def _read(self, folder: Path, **how: Any) -> Samples:
        data = CocoInstances(str(folder / "images"), str(folder / "annotations.json"), size=(SIDE, SIDE), **how)
        return read_samples(data, self.backbone, SIDE)

    def samples(self, variant: str) -> Samples:
        """What a variant learns from."""
        if variant.startswith("pseudo"):
            return self.pseudo
        return self.everything if variant == "everything" else self.base


def configure(variant: str) -> ContrastMaskConfig:
    """A preset, or `base`, `novel` for whose boxes are contrasted; all of them small."""
    name = variant.removeprefix("pseudo ").replace("everything", "paper")
    tiny = CONTRASTMASK_PRESETS["tiny"]["model"]
    preset: dict[str, Any] = CONTRASTMASK_PRESETS.get(name, {}).get("model", {})
    contrast = {**tiny["contrast"], "encoder_convs": 4}
    if name in SUPERVISIONS:
        contrast["supervision"] = name
    return parse_settings(ContrastMaskConfig, {**tiny, **preset, "contrast": contrast})


def train(data: Data, variant: str, size: Size, seed: int) -> MaskRCNN:
    torch.manual_seed(seed)
    model = build(data.backbone, len(CLASSES), configure(variant)).train()
    data.backbone.eval()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, weight_decay=1e-3)
    samples = data.samples(variant)
    torch.manual_seed(seed)
    for step, (places, _) in enumerate(draw(samples, size, seed, size.finetune)):
        model.advance(EPOCHS * step / size.finetune)
        for group in optimizer.param_groups:
            group["lr"] = size.rate_at(step, size.finetune)
        images = torch.stack([samples[place][0] for place in places])
        losses = model.losses(images, [(SIDE, SIDE)] * len(places), [samples[place][1] for place in places], alone)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
    return model.eval()


@torch.inference_mode()
def judge(model: MaskRCNN, samples: Samples) -> dict[str, float]:
    """Mean IoU at 28 cells in annotated boxes, the class being known."""
    found: dict[str, list[float]] = {"base": [], "novel": []}
    for image, target in samples:
        count = len(target.labels)
        pyramid = model.pyramid(image[None])
        boxes = model._boxes(pyramid, [target.boxes], (SIDE, SIDE))
        cams = model._cams(boxes, torch.arange(count), target.labels + 1)
        logits, _ = model._masks(pyramid, [target.boxes], (SIDE, SIDE), cams)
        truth = project_masks_on_boxes(target.masks, target.boxes, torch.arange(count), 28) >= 0.5
        inside = logits[:, 0] > 0
        iou = (inside & truth).sum((1, 2)) / (inside | truth).sum((1, 2))
        for class_, value in zip(target.labels.tolist(), iou.tolist(), strict=True):
            found["base" if class_ < BASE else "novel"].append(value)
    return {group: round(100 * statistics.fmean(values), 2) for group, values in found.items()}


def summarise(units: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Each variant's mean, and the claims as differences of paired seeds."""
    groups = ("base", "novel")
    means = {name: {g: interval([one[g] for one in seeds.values()]) for g in groups} for name, seeds in units.items()}
    claims: dict[str, Any] = {}
    for better, worse in CLAIMS:
        both = sorted(set(units.get(better, ())) & set(units.get(worse, ())))
        if both:
            claims[f"{better} > {worse}"] = {
                g: interval([units[better][s][g] - units[worse][s][g] for s in both]) for g in groups
            }
    return {"iou": means, "claims": claims}


class Kept:
    """Bytes of the tensors that a backward pass needs, each storage once."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}

    def __call__(self, tensor: Tensor) -> Tensor:
        """A hook of `saved_tensors_hooks`."""
        storage = tensor.untyped_storage()
        self._seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    @property
    def megabytes(self) -> float:
        """Of all."""
        return sum(self._seen.values()) / 1e6


def cost(rounds: int) -> dict[str, Any]:
    """ContrastMask over Mask R-CNN, both as published on a ResNet-50 but at 256 pixels and with 128 regions.

    CPU time of steps and of inference, alternating in one process, and what a step keeps for its backward pass.
    """
    small: dict[str, Any] = {"rois": 128, "proposals_train": 500, "proposals_test": 100}
    options = {"maskrcnn": MaskRCNNConfig(**small), "contrastmask": ContrastMaskConfig(**small)}
    torch.manual_seed(0)
    side, batch = 256, 2
    backbone = build_backbone("resnet50")
    models = {name: build(backbone, len(CLASSES), one) for name, one in options.items()}
    images = torch.randn(batch, 3, side, side)
    boxes = torch.tensor([[20.0, 20.0, 120.0, 140.0], [100.0, 90.0, 230.0, 200.0], [60.0, 150.0, 140.0, 250.0]])
    masks = torch.zeros(3, side, side, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y1:y2, x1 : (x1 + x2) // 2] = 1
    known = torch.tensor([True, True, False])
    targets = [Targets(masks, torch.arange(3), boxes, torch.ones(3), known)] * batch
    seconds: dict[str, dict[str, list[float]]] = {part: {name: [] for name in models} for part in ("step", "inference")}
    kept = {}
    for turn in range(rounds + 1):
        for name in list(models) if turn % 2 else list(reversed(models)):
            model, memory = models[name], Kept()
            start = time.process_time()
            with torch.autograd.graph.saved_tensors_hooks(memory, lambda tensor: tensor):
                losses = model.train().losses(images, [(side, side)] * batch, targets, alone)
            torch.stack(list(losses.values())).sum().backward()
            middle = time.process_time()
            with torch.inference_mode():
                model.eval().find(images, [(side, side)] * batch, Limits(100))
            end = time.process_time()
            model.zero_grad()
            kept[name] = memory.megabytes
            if turn:
                seconds["step"][name].append(middle - start)
                seconds["inference"][name].append(end - middle)
    ratios = {}
    for part, found in seconds.items():
        each = [a / b for a, b in zip(found["contrastmask"], found["maskrcnn"], strict=True)]
        ratios[part] = {
            "ratio": round(statistics.median(each), 3),
            "quartiles": [round(r, 3) for r in statistics.quantiles(each, n=4)[::2]],
            "cpu_seconds": {name: round(statistics.median(one), 3) for name, one in found.items()},
        }
    return {**ratios, "kept_megabytes": {name: round(value, 1) for name, value in kept.items()}, "rounds": rounds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    began = time.time()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    result: dict[str, Any] = json.loads(options.json.read_text()) if options.json.exists() else {}
    result |= {"benchmark": "partial_masks", "environment": describe(CPU)}
    if options.cost:
        publish(result | {"cost": cost(options.rounds)}, options.json)
        return
    if result.setdefault("steps", options.steps) != options.steps:
        parser.error(f"{options.json} was made with other --steps: give another file")
    data, size = Data(options.work.absolute()), Size(0, options.steps, 4, 1e-3)
    result |= {"pseudo_labels": data.quality, "labelling": LABELLING, "scenes": SCENES, "side": SIDE}
    units = result.setdefault("units", {})
    for seed in range(options.seeds):  # all variants of a seed before the next: what is there is paired
        for name in options.variants:
            seeds = units.setdefault(name, {})
            if str(seed) in seeds or time.time() - began > 60 * options.minutes:
                continue
            start = time.process_time()
            scores = judge(train(data, name, size, seed), data.held_out)
            seeds[str(seed)] = {**scores, "cpu_seconds": round(time.process_time() - start, 1)}
            print(f"{time.time() - began:5.0f} s: {name}, {seed}: {seeds[str(seed)]}", flush=True)
            options.json.write_text(json.dumps(result, indent=1) + "\n")
    result["summary"] = summarise({name: one for name, one in units.items() if one})
    publish(result, options.json)


if __name__ == "__main__":
    main()
