"""ContrastMask on generated scenes: IoU of masks in given boxes, for shapes that had masks and shapes that had none.

    python benchmarks/partial_masks.py [--variants baseline cam paper code_compat] [--seeds 3] [--steps 400] [--json F]

Ellipses and boxes are base classes, triangles novel ones. Under a seed every variant sees the same scenes in the same
order, from a fresh backbone; in the end boxes and classes are given, so that masks alone are judged.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import describe, publish
from scenes import CLASSES, SIDE, make_scene
from torch import Tensor
from torchvision.models.detection.roi_heads import project_masks_on_boxes

from saliency_prompt.models.backbones.registry import build_backbone
from saliency_prompt.models.detector import Targets, alone
from saliency_prompt.models.mask_rcnn.model import MaskRCNN, build
from saliency_prompt.schemas.load import parse_settings
from saliency_prompt.schemas.training.contrastmask import CONTRASTMASK_PRESETS, ContrastMaskConfig

BASE = 2  # classes with masks, the first ones
BATCH = 4
JUDGED = 10**6  # seed of the scenes that nobody trains on
EPOCHS = 12  # that the steps stand for, in the contrast's warm-up
SUPERVISIONS = ("base", "novel", "all")


def sample(seed: int, number: int) -> tuple[Tensor, Targets]:
    """A normalised scene and its objects."""
    made = make_scene(seed, number)
    labels = torch.tensor(made.labels)
    boxes = [[x.min(), y.min(), x.max() + 1, y.max() + 1] for y, x in map(np.nonzero, made.masks)]
    target = Targets(
        torch.from_numpy(np.stack(made.masks)).byte(),
        labels,
        torch.tensor(np.array(boxes), dtype=torch.float32),
        torch.ones(len(labels)),
        labels < BASE,
    )
    return (torch.from_numpy(made.image).permute(2, 0, 1).float() - 120) / 60, target


def configure(variant: str) -> ContrastMaskConfig:
    """A preset, or `base`, `novel`, `all` for whose boxes are contrasted; all of them small."""
    tiny = CONTRASTMASK_PRESETS["tiny"]["model"]
    preset: dict[str, Any] = CONTRASTMASK_PRESETS.get(variant, {}).get("model", {})
    contrast = {**tiny["contrast"], "encoder_convs": 4}
    if variant in SUPERVISIONS:
        contrast["supervision"] = variant
    return parse_settings(ContrastMaskConfig, {**tiny, "rois": 64, **preset, "contrast": contrast})


def train(variant: str, seed: int, steps: int) -> MaskRCNN:
    torch.manual_seed(seed)
    model = build(build_backbone("resnet18"), len(CLASSES), configure(variant)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=1e-3)
    for step in range(steps):
        batch = [sample(seed, BATCH * step + i) for i in range(BATCH)]
        model.advance(EPOCHS * step / steps)
        for group in optimizer.param_groups:
            group["lr"] = 5e-4 * min(1, (step + 1) / 50) * (0.1 if step > 0.8 * steps else 1)
        images = torch.stack([image for image, _ in batch])
        losses = model.losses(images, [(SIDE, SIDE)] * BATCH, [target for _, target in batch], alone)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    return model.eval()


@torch.inference_mode()
def judge(model: MaskRCNN, scenes: int = 60) -> dict[str, float]:
    """Mean IoU at 28 cells in annotated boxes, the class being known."""
    found: dict[str, list[float]] = {"base": [], "novel": []}
    for number in range(scenes):
        image, target = sample(JUDGED, number)
        count = len(target.labels)
        pyramid = model.pyramid(image[None])
        boxes = model._boxes(pyramid, [target.boxes], (SIDE, SIDE))
        cams = model._cams(boxes, torch.arange(count), target.labels + 1)
        logits, _ = model._masks(pyramid, [target.boxes], (SIDE, SIDE), cams)
        truth = project_masks_on_boxes(target.masks, target.boxes, torch.arange(count), 28) >= 0.5
        inside = logits[:, 0] > 0
        iou = (inside & truth).sum((1, 2)) / (inside | truth).sum((1, 2))
        for label, value in zip(target.labels.tolist(), iou.tolist(), strict=True):
            found["base" if label < BASE else "novel"].append(value)
    return {group: statistics.fmean(values) for group, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variants", nargs="+", default=["baseline", "cam", "paper"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, list[dict[str, float]]] = {name: [] for name in options.variants}
    for seed in range(options.seeds):
        for name in options.variants:
            start = time.perf_counter()
            results[name].append(judge(train(name, seed, options.steps)))
            last = results[name][-1]
            took = time.perf_counter() - start
            print(
                f"seed {seed} {name:12} base {last['base']:.3f} novel {last['novel']:.3f} in {took:.0f} s", flush=True
            )
    report = {"steps": options.steps, "environment": describe(torch.device("cpu")), "iou": results}
    publish(report, options.json)


if __name__ == "__main__":
    main()
