"""Does the ordering of the paper hold on a small world? Pre-training arms of three models, fine-tuned on few labels.

    python benchmarks/sp_ordering.py --work DIR --weights BACKBONE [--hosts knet,queryinst,mask2former] [--seeds 3]
        [--arms 'NAME; ...'] [--json F] [--figure F] [--processes 2]

Each model is pre-trained on generated scenes (scenes.py) in each of the ways of Saliency Prompt, Tables 3, 4, 5 and 7,
and then fine-tuned on a few annotated scenes. Seeds are paired: what a seed draws (fresh parameters, order of images,
augmentation, prompts that are dropped) is the same in every arm, and arms are compared by their differences seed by
seed. Pseudo-labels come from the pipeline; "random" are rectangles, "good" the true masks, and as neither has a seed
vector, sources are compared without the kernel loss. Finished arms in DIR are not run again.
"""

import argparse
import multiprocessing
import os
import shutil
import statistics
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import describe, publish
from rich.console import Console
from scenes import write_scenes

from saliency_prompt import PseudoLabelDataset
from saliency_prompt.pipeline.curves import Curves, draw_curves, read_curves
from saliency_prompt.pipeline.evaluate import evaluate_dataset
from saliency_prompt.pipeline.generate import Job, generate
from saliency_prompt.pipeline.progress import Display
from saliency_prompt.pipeline.sources import open_source
from saliency_prompt.pipeline.training.job import Inputs, TrainingJob
from saliency_prompt.pipeline.training.model import build_model
from saliency_prompt.schemas.load import load_config
from saliency_prompt.schemas.run import RunCard
from saliency_prompt.schemas.training.registry import load_pretraining_config, load_training_config
from saliency_prompt.schemas.training.sections import PromptedConfig
from saliency_prompt.stages.backbone import load_backbone
from saliency_prompt.stages.instances.augment import Samples
from saliency_prompt.stages.instances.labelled import CocoInstances
from saliency_prompt.stages.instances.samples import Sample, make_sample
from saliency_prompt.stages.recipes.saliency_prompt import SaliencyPrompt
from saliency_prompt.stages.training.fit import Control, Place, fit
from saliency_prompt.store.run import Run

CPU = torch.device("cpu")
HOSTS = ("knet", "queryinst", "mask2former")


@dataclass(frozen=True)
class Arm:
    """How a model is pre-trained; `assigner` None is not at all."""

    assigner: str | None
    kernel_loss: bool = True
    inject_at: str = "after_head"
    source: str = "saliency"


ARMS = {
    "no pre-training": Arm(None),
    "none": Arm("none"),
    "random": Arm("random"),
    "sequential": Arm("sequential"),
    "cosine": Arm("cosine"),
    "cosine, before head": Arm("cosine", inject_at="before_head"),
    "none, no kernel loss": Arm("none", kernel_loss=False),
    "cosine, no kernel loss": Arm("cosine", kernel_loss=False),
    "none, random masks": Arm("none", kernel_loss=False, source="random"),
    "cosine, random masks": Arm("cosine", kernel_loss=False, source="random"),
    "none, good masks": Arm("none", kernel_loss=False, source="good"),
    "cosine, good masks": Arm("cosine", kernel_loss=False, source="good"),
}
CLAIMS = (  # (better, worse) according to the paper
    ("none", "no pre-training"),
    ("cosine", "no pre-training"),
    ("none", "random"),
    ("sequential", "none"),
    ("cosine", "sequential"),
    ("cosine, before head", "cosine"),  # the paper does not compare them
    ("none", "none, no kernel loss"),
    ("cosine", "cosine, no kernel loss"),
    ("cosine, random masks", "none, random masks"),
    ("cosine, no kernel loss", "none, no kernel loss"),
    ("cosine, good masks", "none, good masks"),
    ("none, no kernel loss", "none, random masks"),
    ("none, good masks", "none, no kernel loss"),
)
RECTANGLES = 10  # of a "random" image, as UP-DETR draws them
METRICS = ("AP", "AP50", "AP_agnostic", "AR100_agnostic")
LABELLING = [
    "decode.short_side=256",
    "decode.long_side=256",
    "filters.min_score=0.3",
    "filters.min_center_y=null",
]

TRAINER = ["data.batch_size=8", "trainer.lr=4e-4", "trainer.lr_batch=8", "trainer.warmup_steps=50"]


@dataclass(frozen=True)
class World:
    """How large everything is, and where."""

    work: str
    weights: str
    labeller: str
    unlabelled: int
    labelled: int
    held_out: int
    pretrain_epochs: int
    finetune_epochs: int

    @property
    def dataset(self) -> str:
        """The data set of pseudo-labels."""
        return str(Path(self.work) / "dataset")

    def scenes(self, part: str) -> Path:
        """Folder of `images` and `annotations.json`."""
        return Path(self.work) / part


class Rectangles:
    """The photographs of a data set, each with random boxes as objects."""

    def __init__(self, data: CocoInstances) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def load(self, index: int, size: tuple[int, int]) -> Sample:
        """See `Samples`."""
        image, target = self._data.load(index, size)
        height, width = image.shape[1:]
        rng = np.random.default_rng(index)
        masks = np.zeros((RECTANGLES, height, width), np.uint8)
        for one in masks:
            h, w = (rng.uniform(0.1, 0.9, 2) * (height, width)).astype(int)
            y, x = int(rng.uniform(0, height)), int(rng.uniform(0, width))
            one[max(0, y - h // 2) : y + h // 2 + 1, max(0, x - w // 2) : x + w // 2 + 1] = 1
        return _sample(image, masks, target)


class OneClass:
    """A data set whose objects are all of one class."""

    def __init__(self, data: CocoInstances) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def load(self, index: int, size: tuple[int, int]) -> Sample:
        """See `Samples`."""
        image, target = self._data.load(index, size)
        return _sample(image, np.asarray(target["masks"]), target)


def _sample(image: torch.Tensor, masks: Any, target: dict[str, Any]) -> Sample:
    about = {name: target[name] for name in ("image_id", "file_name", "stored")}
    return make_sample(image.permute(1, 2, 0).numpy(), masks, [0] * len(masks), about)


def make_world(world: World) -> dict[str, float]:
    """Draw the scenes and label them; what the pseudo-labels score."""
    parts = {"unlabelled": world.unlabelled, "labelled": world.labelled, "held_out": world.held_out}
    for seed, (part, count) in enumerate(parts.items(), start=1):
        if not (world.scenes(part) / "annotations.json").exists():
            write_scenes(world.scenes(part), seed, count)
    unlabelled = world.scenes("unlabelled")
    return label(world.labeller, unlabelled / "images", unlabelled / "annotations.json", Path(world.dataset), LABELLING)


def label(labeller: str, images: Path, gt: Path, out: Path, overrides: list[str]) -> dict[str, float]:
    """Make a data set with the pipeline; what its masks score against annotations that it has not seen."""
    config = load_config(overrides=[f"features.weights={labeller}", *overrides])
    with Display(Console(quiet=True)) as display:
        dataset, _ = generate(open_source(str(images)), Job(str(out), config, CPU), display, threading.Event())
    scores = evaluate_dataset(dataset, gt)["segm"]
    return {name: round(float(scores[name] or 0), 2) for name in ("AP", "AP50", "AR10", "AR100")}


def run_arm(world: World, host: str, name: str, seed: int) -> str:
    """Pre-train and fine-tune; leaves two run folders."""
    torch.set_num_threads(1)
    arm = ARMS[name]
    folder = folder_of(world, host, name, seed)
    if (folder / "done").exists():
        return f"{host}, {name}"
    shutil.rmtree(folder, ignore_errors=True)
    common = ["data.short_side=128", "data.long_side=128", "data.workers=0", f"trainer.seed={seed}"]
    common += ["trainer.precision=bf16", "trainer.log_every=50", *TRAINER]
    origin = {"weights": world.weights}
    if arm.assigner is not None:
        chosen = [f"prompt.assigner={arm.assigner}", f"prompt.kernel_weight={float(arm.kernel_loss)}"]
        chosen += [f"prompt.inject_at={arm.inject_at}", f"trainer.max_epochs={world.pretrain_epochs}"]
        config = load_pretraining_config(host, "tiny", overrides=[*common, *chosen])
        pretrain(world, config, arm, folder / "pretrain")
        origin = {"start": str(folder / "pretrain")}
    chosen = [
        f"trainer.max_epochs={world.finetune_epochs}",
        f"trainer.evaluate_every={max(1, world.finetune_epochs // 4)}",
    ]
    tuning = load_training_config(host, "tiny", overrides=[*common, *chosen])
    train, val = world.scenes("labelled"), world.scenes("held_out")
    inputs = Inputs(
        images=str(train / "images"),
        gt=str(train / "annotations.json"),
        val_images=str(val / "images"),
        val_gt=str(val / "annotations.json"),
        **origin,
    )
    TrainingJob("supervised", tuning, inputs, folder / "finetune").run(Place(CPU), Control())
    (folder / "done").touch()
    return f"{host}, {name}"


def pretrain(world: World, config: PromptedConfig, arm: Arm, out: Path) -> None:
    """The recipe of `saliency-prompt pretrain`, on any source of masks."""
    size, photos = (config.data.short_side, config.data.long_side), world.scenes("unlabelled")
    data: Samples
    channels = 0
    if arm.source == "saliency":
        labels = PseudoLabelDataset(world.dataset, size=size, vectors=("seed",) if arm.kernel_loss else ())
        channels = labels[0][1]["vectors"]["seed"].shape[1] if arm.kernel_loss else 0
        data = labels
    else:
        truth = CocoInstances(str(photos / "images"), str(photos / "annotations.json"), size=size)
        data = Rectangles(truth) if arm.source == "random" else OneClass(truth)
    backbone = load_backbone(world.weights)
    host: Any = build_model(config, backbone.module, 1)
    run = Run(out)
    run.write_card(
        RunCard(
            recipe="saliency-prompt",
            model=config.model.host,
            config=config.model_dump(mode="json"),
            arch=backbone.arch,
            weights=backbone.weights,
            weights_sha256=backbone.weights_sha256,
            num_classes=1,
            seed_channels=channels,
            images=len(data),
        )
    )
    fit(SaliencyPrompt(host, config, data, seed_channels=channels), run, Place(CPU), Control(), None)


def folder_of(world: World, host: str, name: str, seed: int) -> Path:
    """Where an arm's runs are."""
    return Path(world.work) / "arms" / host / f"{name.replace(', ', '-').replace(' ', '_')}-{seed}"


def summarise(runs: dict[str, list[Curves]]) -> dict[str, Any]:
    """Each arm's metrics at every evaluation, their intervals at the end; the paper's claims as paired differences."""
    arms: dict[str, Any] = {}
    for name, curves in runs.items():
        arms[name] = {}
        for metric in METRICS:
            points = [one[f"val/{metric}"] for one in curves]
            final = [one[max(one)] for one in points]
            by_step = {step: round(statistics.mean(one[step] for one in points), 2) for step in sorted(points[0])}
            arms[name][metric] = {**interval(final), "by_seed": [round(v, 3) for v in final], "by_step": by_step}
    claims = []
    for better, worse in CLAIMS:
        if better not in arms or worse not in arms:
            continue
        pairs = {m: zip(arms[better][m]["by_seed"], arms[worse][m]["by_seed"], strict=True) for m in METRICS}
        claims.append(
            {"claim": f"{better} > {worse}", **{m: interval([a - b for a, b in both]) for m, both in pairs.items()}}
        )
    return {"arms": arms, "claims": claims}


def interval(values: list[float]) -> dict[str, float]:
    """Mean, and half the width of the 95 % interval of the mean (Student's t)."""
    t = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}.get(len(values), 2.3)
    half = t * statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return {"mean": round(statistics.mean(values), 3), "plus_minus": round(half, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--weights", default="densecl-r18-mini", help="the models' backbone")
    parser.add_argument("--hosts", default=",".join(HOSTS))
    parser.add_argument("--arms", default=";".join(ARMS), help="some of them, between semicolons")
    parser.add_argument("--labeller", default="lab-color", help="what the pseudo-labels are made with")
    parser.add_argument("--unlabelled", type=int, default=1000)
    parser.add_argument("--labelled", type=int, default=100)
    parser.add_argument("--held-out", type=int, default=150)
    parser.add_argument("--pretrain-epochs", type=int, default=6)
    parser.add_argument("--finetune-epochs", type=int, default=48)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    began, seeds = time.time(), range(options.seeds)
    hosts, names = options.hosts.split(","), [name.strip() for name in options.arms.split(";")]
    world = World(
        str(options.work.absolute()),
        options.weights,
        options.labeller,
        options.unlabelled,
        options.labelled,
        options.held_out,
        options.pretrain_epochs,
        options.finetune_epochs,
    )
    labels = make_world(world)
    print(f"pseudo-labels: {labels}", flush=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(options.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        # all arms of a seed before the next seed: what is there when time is up is paired
        jobs = [pool.submit(run_arm, world, host, name, seed) for seed in seeds for name in names for host in hosts]
        for job in jobs:
            name = job.result()
            print(f"{time.time() - began:6.0f} s: {name}", flush=True)
    runs = {
        host: {name: [read_curves(folder_of(world, host, name, seed) / "finetune") for seed in seeds] for name in names}
        for host in hosts
    }
    size = {key: value for key, value in asdict(world).items() if key not in ("work", "weights", "labeller")}
    result = {
        "benchmark": "sp_ordering",
        "pseudo_labels": labels,
        "hosts": {host: summarise(runs[host]) for host in hosts},
        "seeds": options.seeds,
        "size": size,
        "weights": Path(options.weights).name,
        "labeller": options.labeller,
        "labelling": LABELLING,
        "trainer": TRAINER,
        "minutes": round((time.time() - began) / 60, 1),
        "environment": describe(CPU),
    }
    publish(result, options.json)
    if options.figure:
        for host in hosts:
            path = options.figure.with_name(f"{options.figure.stem}_{host}{options.figure.suffix}")
            draw_curves(runs[host], path, ["val/AP_agnostic", "val/AR100_agnostic", "val/AP"])


if __name__ == "__main__":
    main()
