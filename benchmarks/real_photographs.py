"""Do better pseudo-masks make better pre-training on real photographs? Small: most annotations to fine-tune on.

    python benchmarks/real_photographs.py --images DIR --gt COCO.json --weights FILE --work DIR [--train 200]
        [--seeds 3] [--arms NAME ...] [--json F] [--figure F] [--set model.stride_in_1x1=true ...]

The first photographs of the file, by name, are fine-tuned on, the others evaluated; pre-training sees all of them,
without annotations, under the masks of one generator. Seeds are paired: what a seed draws (fresh parameters, order of
images, augmentation) is the same in every arm, and arms are compared by their differences seed by seed. Finished runs
in DIR are not run again, a broken one is resumed.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from environment import describe, publish
from rich.console import Console
from sp_ordering import interval

from saliency_prompt.pipeline.curves import Curves, draw_curves, read_curves
from saliency_prompt.pipeline.evaluate import evaluate_dataset
from saliency_prompt.pipeline.generate import Job, generate
from saliency_prompt.pipeline.progress import Display
from saliency_prompt.pipeline.sources import open_source
from saliency_prompt.pipeline.training.job import Inputs, TrainingJob
from saliency_prompt.schemas.registry import load_label_config
from saliency_prompt.schemas.training.registry import load_pretraining_config, load_training_config
from saliency_prompt.stages.training.fit import Control, Place

CPU = torch.device("cpu")
COMMON = [
    "data.short_side=128",
    "data.long_side=224",
    "data.batch_size=8",
    "data.workers=0",
    "model.queries=30",
    "model.channels=64",
    "model.hidden=128",
    "model.freeze=all",
    "trainer.lr=4e-4",
    "trainer.lr_batch=8",
    "trainer.warmup_steps=25",
    "trainer.precision=bf16",
    "trainer.log_every=25",
]
MASKS = ["data.max_masks=15"]  # of pre-training: half as many as there are queries
NONE = "no pre-training"
ARMS: dict[str, tuple[str, str, list[str]] | None] = {  # producer, preset and overrides of the pseudo-labels
    NONE: None,
    "lab-color, saliency": ("saliency", "saliency-prompt", ["features.weights=lab-color"]),
    "DINOv2, merge": ("merge", "merge", []),
}
METRICS = ("AP_agnostic", "AR100_agnostic", "AP")


@dataclass(frozen=True)
class Setting:
    """What all arms are given."""

    images: str
    weights: str
    work: str
    pretrain_epochs: int
    finetune_epochs: int
    overrides: tuple[str, ...]

    def folder(self, name: str) -> Path:
        """Where what belongs to an arm is."""
        return Path(self.work) / name.replace(", ", "-").replace(" ", "_")


def split(gt: Path, work: Path, train: int) -> None:
    """Write `train.json` and `val.json`."""
    truth = json.loads(gt.read_text())
    images = sorted(truth["images"], key=lambda image: image["file_name"])
    for name, part in (("train", images[:train]), ("val", images[train:])):
        ids = {image["id"] for image in part}
        annotations = [one for one in truth["annotations"] if one["image_id"] in ids]
        content = {"images": part, "annotations": annotations, "categories": truth["categories"]}
        (work / f"{name}.json").write_text(json.dumps(content))


def label(setting: Setting, name: str, gt: Path) -> dict[str, float]:
    """Make an arm's data set with the pipeline; what its masks score against annotations that it has not seen."""
    arm = ARMS[name]
    assert arm is not None
    producer, preset, overrides = arm
    config = load_label_config(producer, preset, overrides=overrides)
    with Display(Console(quiet=True)) as display:
        job = Job(str(setting.folder(name) / "dataset"), config, CPU)
        dataset, _ = generate(open_source(setting.images), job, display, threading.Event())
    scores = evaluate_dataset(dataset, gt)["segm"]
    return {name: round(float(scores[name] or 0), 2) for name in ("AP", "AP50", "AR10", "AR100")}


def run_arm(setting: Setting, name: str, seed: int) -> str:
    """Leaves run folders in the arm's own."""
    torch.set_num_threads(1)
    work = setting.folder(name)
    common = [*COMMON, *setting.overrides, f"trainer.seed={seed}"]
    begin = {"weights": setting.weights}
    if ARMS[name] is not None:
        epochs = [f"trainer.max_epochs={setting.pretrain_epochs}"]
        config = load_pretraining_config("knet", "tiny", overrides=[*common, *MASKS, *epochs])
        inputs = Inputs(dataset=str(work / "dataset"), weights=setting.weights)
        out = work / f"pretrain-{seed}"
        TrainingJob("saliency-prompt", config, inputs, out).run(Place(CPU), Control())
        begin = {"start": str(out)}
    epochs = [
        f"trainer.max_epochs={setting.finetune_epochs}",
        f"trainer.evaluate_every={max(1, setting.finetune_epochs // 2)}",
    ]
    tuning = load_training_config("knet", "tiny", overrides=[*common, *epochs])
    gt, val = str(Path(setting.work) / "train.json"), str(Path(setting.work) / "val.json")
    inputs = Inputs(images=setting.images, gt=gt, val_images=setting.images, val_gt=val, **begin)
    TrainingJob("supervised", tuning, inputs, work / f"finetune-{seed}").run(Place(CPU), Control())
    return name


def summarise(runs: dict[str, list[Curves]]) -> dict[str, Any]:
    """Each arm's metrics at every evaluation, their intervals at the end, and paired differences between arms."""
    arms: dict[str, Any] = {}
    for name, curves in runs.items():
        arms[name] = {}
        for metric in METRICS:
            points = [one[f"val/{metric}"] for one in curves]
            final = [one[max(one)] for one in points]
            by_step = {step: round(statistics.mean(one[step] for one in points), 2) for step in sorted(points[0])}
            arms[name][metric] = {**interval(final), "by_seed": [round(v, 3) for v in final], "by_step": by_step}
    gains = {}
    names = list(runs)
    for place, better in enumerate(names):
        for worse in names[:place]:
            pairs = {m: zip(arms[better][m]["by_seed"], arms[worse][m]["by_seed"], strict=True) for m in METRICS}
            gains[f"{better} over {worse}"] = {m: interval([a - b for a, b in both]) for m, both in pairs.items()}
    return {"arms": arms, "gains": gains}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--gt", type=Path, required=True)
    parser.add_argument("--weights", required=True, help="K-Net's backbone; it stays frozen")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--arms", nargs="*", default=list(ARMS))
    parser.add_argument("--train", type=int, default=200)
    parser.add_argument("--pretrain-epochs", type=int, default=4)
    parser.add_argument("--finetune-epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    began, work = time.time(), options.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    split(options.gt, work, options.train)
    setting = Setting(
        str(options.images.absolute()),
        options.weights,
        str(work),
        options.pretrain_epochs,
        options.finetune_epochs,
        tuple(options.set),
    )
    labels = {name: label(setting, name, options.gt) for name in options.arms if ARMS[name] is not None}
    print(f"pseudo-labels: {labels}", flush=True)
    # all arms of a seed before the next seed: what is there when time is up is paired
    todo = [(setting, name, seed) for seed in range(options.seeds) for name in options.arms]
    if options.processes == 1:
        for one in todo:
            print(f"{time.time() - began:6.0f} s: {run_arm(*one)}", flush=True)
    else:
        os.environ["OMP_NUM_THREADS"] = "1"
        with ProcessPoolExecutor(options.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            for job in [pool.submit(run_arm, *one) for one in todo]:
                print(f"{time.time() - began:6.0f} s: {job.result()}", flush=True)
    runs = {
        name: [read_curves(setting.folder(name) / f"finetune-{seed}") for seed in range(options.seeds)]
        for name in options.arms
    }
    result = {
        "benchmark": "real_photographs",
        "pseudo_labels": labels,
        **summarise(runs),
        "seeds": options.seeds,
        "train": options.train,
        "weights": Path(options.weights).name,
        "epochs": {"pretrain": options.pretrain_epochs, "finetune": options.finetune_epochs},
        "settings": [*COMMON, *options.set],
        "pretraining": MASKS,
        "minutes": round((time.time() - began) / 60, 1),
        "environment": describe(CPU),
    }
    publish(result, options.json)
    if options.figure:
        draw_curves(runs, options.figure, [f"val/{metric}" for metric in METRICS])


if __name__ == "__main__":
    main()
