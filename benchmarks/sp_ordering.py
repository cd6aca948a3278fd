"""Does the ordering of the paper hold on a small world? Pre-training arms, fine-tuned on few labels, three seeds.

    python benchmarks/sp_ordering.py --work DIR --weights BACKBONE [--json F] [--figure F] [--processes 2]

The pipeline labels generated scenes (scenes.py), K-Net is pre-trained on them in each of the ways of Saliency Prompt,
Tables 4, 5 and 7, and then fine-tuned on a few annotated scenes. A seed changes all that is drawn: fresh parameters,
order, augmentation, dropout of prompts. The bad masks are those of another scene. Finished arms in DIR are not run
again.
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

import torch
from environment import describe, publish
from rich.console import Console
from scenes import write_scenes

from saliency_prompt import PseudoLabelDataset
from saliency_prompt.pipeline.curves import Curves, draw_curves, read_curves
from saliency_prompt.pipeline.evaluate import evaluate_dataset
from saliency_prompt.pipeline.generate import Job, generate
from saliency_prompt.pipeline.instances.jobs import Loop, finetune, pretrain_on, reader_options
from saliency_prompt.pipeline.progress import Display
from saliency_prompt.pipeline.sources import open_source
from saliency_prompt.schemas.instances import FINETUNE_PRESETS, PRETRAIN_PRESETS, load_instance_config
from saliency_prompt.schemas.load import load_config
from saliency_prompt.stages.instances.samples import Sample

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Arm:
    """How K-Net is pre-trained; `assigner` None is not at all."""

    assigner: str | None
    kernel_loss: bool = True
    bad_masks: bool = False


ARMS = {
    "no pre-training": Arm(None),
    "none": Arm("none"),
    "random": Arm("random"),
    "sequential": Arm("sequential"),
    "cosine": Arm("cosine"),
    "cosine, no kernel loss": Arm("cosine", kernel_loss=False),
    "none, bad masks": Arm("none", bad_masks=True),
    "cosine, bad masks": Arm("cosine", bad_masks=True),
}
CLAIMS = (  # (better, worse) according to the paper
    ("cosine", "sequential"),
    ("sequential", "none"),
    ("none", "random"),
    ("none", "no pre-training"),
    ("cosine", "no pre-training"),
    ("cosine", "cosine, no kernel loss"),
    ("cosine, bad masks", "none, bad masks"),
)
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


class OtherMasks(PseudoLabelDataset):
    """Every image with the masks of another one of the same size."""

    def __getitem__(self, index: int) -> Sample:
        image, _ = super().__getitem__(index)
        _, target = super().__getitem__((index + len(self) // 2) % len(self))
        return image, target


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


def run_arm(world: World, name: str, seed: int) -> str:
    """Pre-train and fine-tune; leaves two run folders."""
    torch.set_num_threads(1)
    arm = ARMS[name]
    folder = folder_of(world, name, seed)
    if (folder / "done").exists():
        return name
    shutil.rmtree(folder, ignore_errors=True)
    start = world.weights
    common = ["data.short_side=128", "data.long_side=128", "data.workers=0", f"trainer.seed={seed}"]
    common += ["trainer.precision=bf16", "trainer.log_every=50"]
    if arm.assigner is not None:
        overrides = [f"prompt.assigner={arm.assigner}", f"trainer.max_epochs={world.pretrain_epochs}"]
        overrides += [f"prompt.kernel_weight={float(arm.kernel_loss)}"]
        config = load_instance_config(PRETRAIN_PRESETS, "tiny", overrides=[*common, *overrides, *TRAINER])
        reader = OtherMasks if arm.bad_masks else PseudoLabelDataset
        data = reader(world.dataset, None, **reader_options(config))
        pretrain_on(data, world.weights, config, folder / "pretrain", Loop(CPU))
        start = str(folder / "pretrain")
    overrides = [f"trainer.max_epochs={world.finetune_epochs}", f"trainer.evaluate_every={world.finetune_epochs // 4}"]
    config = load_instance_config(FINETUNE_PRESETS, "tiny", overrides=[*common, *overrides, *TRAINER])
    train, val = world.scenes("labelled"), world.scenes("held_out")
    finetune(
        start,
        str(train / "images"),
        str(train / "annotations.json"),
        config,
        folder / "finetune",
        Loop(CPU),
        val_images=str(val / "images"),
        val_gt=str(val / "annotations.json"),
    )
    (folder / "done").touch()
    return name


def folder_of(world: World, name: str, seed: int) -> Path:
    """Where an arm's runs are."""
    return Path(world.work) / "arms" / f"{name.replace(', ', '-').replace(' ', '_')}-{seed}"


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
        pairs = {m: zip(arms[better][m]["by_seed"], arms[worse][m]["by_seed"], strict=True) for m in METRICS}
        claims.append(
            {"claim": f"{better} > {worse}", **{m: interval([a - b for a, b in both]) for m, both in pairs.items()}}
        )
    return {"arms": arms, "claims": claims}


def interval(values: list[float]) -> dict[str, float]:
    """Mean, and half the width of the 95 % interval of the mean (Student's t)."""
    t = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776}.get(len(values), 2.0)
    half = t * statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return {"mean": round(statistics.mean(values), 3), "plus_minus": round(half, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--weights", default="densecl-r18-mini", help="K-Net's backbone")
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
        jobs = [pool.submit(run_arm, world, name, seed) for seed in seeds for name in ARMS]
        for job in jobs:
            name = job.result()
            print(f"{time.time() - began:6.0f} s: {name}", flush=True)
    runs = {name: [read_curves(folder_of(world, name, seed) / "finetune") for seed in seeds] for name in ARMS}
    size = {key: value for key, value in asdict(world).items() if key not in ("work", "weights", "labeller")}
    result = {
        "benchmark": "sp_ordering",
        "pseudo_labels": labels,
        **summarise(runs),
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
        draw_curves(runs, options.figure, ["val/AP_agnostic", "val/AR100_agnostic", "val/AP"])


if __name__ == "__main__":
    main()
