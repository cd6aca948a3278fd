"""What the parts of SOLO and SOLOv2 are for, on generated scenes: AP with and without them, paired by seed.

    python benchmarks/solo_ablations.py [--variants solo ...] [--seeds 3] [--steps 300] [--json F]

Under a seed every variant sees the same scenes in the same order, on the same frozen backbone; all are judged on the
same other scenes. Then the four ways of suppression on one trained SOLOv2 (thesis, Table 4.6): AP, and the time
that each takes of an image. `saved_mb` is what a training step keeps for its backward pass.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import describe, publish
from frozen import Known, remember
from intervals import half_width
from scenes import CLASSES, SIDE, Scene, make_scene, write_scenes
from torch import Tensor

from saliency_prompt.models.detector import Limits, Targets, alone
from saliency_prompt.models.nms import SUPPRESSIONS
from saliency_prompt.models.solo import inference
from saliency_prompt.models.solo.build import build
from saliency_prompt.models.solo.criterion import solo_losses
from saliency_prompt.models.solo.model import Solo
from saliency_prompt.schemas.load import parse_settings
from saliency_prompt.schemas.training.solo import SOLO_OPTIONS, SoloConfig
from saliency_prompt.stages.backbone import load_backbone
from saliency_prompt.stages.evaluate import evaluate_coco
from saliency_prompt.stages.instances.results import as_results, encode_found, once_each

BATCH = 4
SCENES = 200  # to train on, under each seed
JUDGED, JUDGES = 10**6, 60  # seed and number of the scenes that nobody trains on
WARMUP = 30
Results = dict[str, list[dict[str, float]]]
# ranges of tiny pictures, whose objects then have masks at stride 4 and 8
COMMON = {"ranges": ((1, 48), (32, 96), (64, 192), (128, 384), (256, 512)), "depth": 3, "width": 64, "channels": 64}
VARIANTS: dict[str, dict[str, Any]] = {
    "solo": {},
    "solo, no coordinates": {"coord_layers": 0},
    "solo, cross-entropy": {"mask_loss": "bce"},
    "solo, focal loss": {"mask_loss": "focal"},
    "decoupled": {},
    "solov2": {},
    "solov2, no coordinates": {"coords": "none"},
    "solov2, coordinates of kernels alone": {"coords": "kernel"},
    "solov2, coordinates of the feature alone": {"coords": "feature"},
    "solov2, separate features": {"mask_feature": "separate"},
}
PRESETS = {"solo": "solo-tiny", "decoupled": "decoupled-solo-tiny", "solov2": "solov2-tiny"}


def configure(variant: str) -> SoloConfig:
    """A member of the family at a small width, and what the variant changes."""
    return parse_settings(
        SoloConfig, {**SOLO_OPTIONS[PRESETS[variant.split(",", maxsplit=1)[0]]], **COMMON, **VARIANTS[variant]}
    )


def batches(seed: int, steps: int, scenes: Sequence[Scene]) -> Iterator[tuple[Tensor, list[Targets]]]:
    """Normalised scenes and their objects, in an order that the seed decides."""
    generator = np.random.default_rng(seed)
    order = np.concatenate([generator.permutation(len(scenes)) for _ in range(1 + steps * BATCH // len(scenes))])
    for step in range(steps):
        chosen = [scenes[number] for number in order[BATCH * step : BATCH * (step + 1)]]
        yield torch.stack([pixels_of(scene) for scene in chosen]), [targets_of(scene) for scene in chosen]


def pixels_of(scene: Scene) -> Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((123.7, 116.3, 103.5), (58.4, 57.1, 57.4)))
    return (torch.from_numpy(scene.image).permute(2, 0, 1).float() - mean) / std


def targets_of(scene: Scene) -> Targets:
    boxes = [[x.min(), y.min(), x.max() + 1, y.max() + 1] for y, x in map(np.nonzero, scene.masks)]
    count = len(scene.labels)
    masks = np.stack(scene.masks) if count else np.zeros((0, SIDE, SIDE))
    return Targets(
        torch.from_numpy(masks).byte(),
        torch.tensor(scene.labels, dtype=torch.int64),
        torch.tensor(np.array(boxes), dtype=torch.float32).reshape(-1, 4),
        torch.ones(count),
    )


def make(variant: str, seed: int, weights: str, known: Known) -> Solo:
    """An untrained model on a backbone that is frozen, and shared by what it remembers."""
    backbone = load_backbone(weights).module
    remember(backbone, known)
    torch.manual_seed(seed)
    return build(backbone, len(CLASSES), configure(variant))


def train(model: Solo, seed: int, options: argparse.Namespace, scenes: Sequence[Scene]) -> Solo:
    """The model, trained."""
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=options.rate, weight_decay=1e-3)
    for step, (images, targets) in enumerate(batches(seed, options.steps, scenes)):
        for group in optimizer.param_groups:
            rise, fall = min(1, (step + 1) / WARMUP), 0.5 * (1 + np.cos(np.pi * step / options.steps))
            group["lr"] = options.rate * rise * fall
        losses = model.losses(images, [(SIDE, SIDE)] * BATCH, targets, alone)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(trained, 5.0)
        optimizer.step()
    return model.eval()


def saved_megabytes(model: Solo, scenes: Sequence[Scene]) -> float:
    """What the head keeps of one batch for the backward pass, each tensor once."""
    images, targets = next(batches(0, 1, scenes))
    pyramid = [one.detach() for one in model.features(images)]
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = solo_losses(model.head, model.head(pyramid), targets, (SIDE, SIDE), alone)
    assert losses
    return sum(kept.values()) / 1e6


@torch.inference_mode()
def judge(model: Solo, gt: Path, scenes: Sequence[Scene]) -> dict[str, float]:
    """AP of masks on the scenes for it, in per cent; with classes and without."""
    results: list[dict[str, Any]] = []
    size = (SIDE, SIDE)
    for first in range(0, len(scenes), BATCH):
        numbers = range(first, min(first + BATCH, len(scenes)))
        images = torch.stack([pixels_of(scenes[number]) for number in numbers])
        for number, found in zip(numbers, model.find(images, [size] * len(images), Limits()), strict=True):
            one = encode_found(found, padded=size, resized=size, stored=size)
            results += as_results(one, number + 1, range(1, len(CLASSES) + 1))
    if not results:
        return dict.fromkeys(("AP", "AP50", "AP_agnostic", "AR100_agnostic"), 0.0)
    usual = evaluate_coco(gt, results, ("segm",), class_agnostic=False)["segm"]
    agnostic = evaluate_coco(gt, once_each(results), ("segm",))["segm"]
    return {
        "AP": usual["AP"],
        "AP50": usual["AP50"],
        "AP_agnostic": agnostic["AP"],
        "AR100_agnostic": agnostic["AR100"],
    }


def compare_nms(model: Solo, gt: Path, scenes: Sequence[Scene]) -> dict[str, dict[str, float]]:
    """Of each way of suppression its AP, and its median milliseconds an image; ways take turns."""
    found: dict[str, dict[str, float]] = {}
    times: dict[str, list[float]] = {kind: [] for kind in SUPPRESSIONS}
    masks: list[int] = []
    plain, options = inference.suppress, model.head.options

    def timed(kind: Any, masks_BMK: Tensor, *rest: Any, **settings: Any) -> Tensor:
        masks.append(masks_BMK.shape[1])
        for one in SUPPRESSIONS:
            start = time.process_time()
            plain(one, masks_BMK, *rest, **settings)
            times[one].append(1000 * (time.process_time() - start))
        return plain(kind, masks_BMK, *rest, **settings)

    for kind in SUPPRESSIONS:
        model.head.options = replace(options, nms=kind)
        found[kind] = judge(model, gt, scenes)
    inference.suppress = timed
    model.head.options = options
    judge(model, gt, scenes)
    inference.suppress = plain
    for kind, values in times.items():
        found[kind]["milliseconds"] = statistics.median(values)
    return {**found, "masks": {"median": statistics.median(masks), "most": max(masks)}}


def paired(one: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """Mean difference, and half the width of its 95 % interval."""
    gains = np.array(one) - np.array(other)
    half = half_width(gains)
    mean = {"mean": round(float(gains.mean()), 2)}
    return mean if half is None else {**mean, "half": round(half, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--weights", default="densecl-r18-mini")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: Results = {name: [] for name in options.variants}
    saved: dict[str, float] = {}
    nms = None
    with tempfile.TemporaryDirectory() as folder:
        write_scenes(Path(folder), JUDGED, JUDGES)
        gt = Path(folder, "annotations.json")
        judged = [make_scene(JUDGED, number) for number in range(JUDGES)]
        known: Known = {}
        for seed in range(options.seeds):
            scenes = [make_scene(seed, number) for number in range(SCENES)]
            for name in options.variants:
                start = time.perf_counter()
                model = make(name, seed, options.weights, known)
                if seed == 0:
                    saved[name] = round(saved_megabytes(model, scenes), 1)
                train(model, seed, options, scenes)
                results[name].append(judge(model, gt, judged))
                took = time.perf_counter() - start
                print(seed, name, {k: round(v, 2) for k, v in results[name][-1].items()}, f"{took:.0f} s", flush=True)
                if name == "solov2" and nms is None:
                    nms = compare_nms(model, gt, judged)
                    print(nms, flush=True)
            publish(report(options, results, saved, nms), options.json)


def report(options: argparse.Namespace, results: Results, saved: dict[str, float], nms: Any) -> dict[str, Any]:
    """What is known so far."""
    gains = {}
    for name in options.variants:
        base = name.split(",")[0] if "," in name else "solo"
        if base in results and base != name:
            gains[f"{name} over {base}"] = {
                key: paired([one[key] for one in results[name]], [one[key] for one in results[base]])
                for key in results[name][0]
            }
    return {
        "benchmark": "solo_ablations",
        "steps": options.steps,
        "weights": options.weights,
        "runs": results,
        "gains": gains,
        "saved_mb": saved,
        "nms": nms,
        "environment": describe(torch.device("cpu")),
    }


if __name__ == "__main__":
    main()
