"""Saliency Prompt on real photographs, small: all labelled, most annotations to fine-tune on, the rest to evaluate.

    python benchmarks/real_photographs.py --images DIR --gt COCO.json --weights FILE --work DIR [--train 200] [--json F]
        [--figure F] [--set model.stride_in_1x1=true ...]

The first photographs of the file, by name, are fine-tuned on, the others evaluated; pre-training sees all of them,
without annotations. Fine-tuning without pre-training runs beside it, a process each. A broken run is resumed.
"""

import argparse
import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from environment import describe, publish
from sp_ordering import label

from saliency_prompt.pipeline.curves import draw_curves, read_curves
from saliency_prompt.pipeline.training.job import Inputs, TrainingJob
from saliency_prompt.schemas.training.registry import load_pretraining_config, load_training_config
from saliency_prompt.stages.training.fit import Control, Place

CPU = torch.device("cpu")
COMMON = [
    "data.short_side=256",
    "data.long_side=384",
    "data.batch_size=8",
    "data.workers=0",
    "model.queries=40",
    "model.channels=128",
    "model.hidden=256",
    "model.freeze=all",
    "trainer.lr=4e-4",
    "trainer.lr_batch=8",
    "trainer.warmup_steps=50",
    "trainer.precision=bf16",
    "trainer.log_every=25",
]
ARMS = ("no pre-training", "pre-trained")


@dataclass(frozen=True)
class Setting:
    """What both arms are given."""

    images: str
    weights: str
    work: str
    pretrain_epochs: int
    finetune_epochs: int
    overrides: tuple[str, ...]


def split(gt: Path, work: Path, train: int) -> None:
    """Write `train.json` and `val.json`."""
    truth = json.loads(gt.read_text())
    images = sorted(truth["images"], key=lambda image: image["file_name"])
    for name, part in (("train", images[:train]), ("val", images[train:])):
        ids = {image["id"] for image in part}
        annotations = [one for one in truth["annotations"] if one["image_id"] in ids]
        content = {"images": part, "annotations": annotations, "categories": truth["categories"]}
        (work / f"{name}.json").write_text(json.dumps(content))


def run_arm(setting: Setting, name: str) -> None:
    """Leaves run folders in the working folder."""
    torch.set_num_threads(1)
    work = Path(setting.work)
    common = [*COMMON, *setting.overrides]
    start = setting.weights
    if name == "pre-trained":
        start = str(work / "pretrain")
        config = load_pretraining_config(
            "knet", "tiny", overrides=[*common, f"trainer.max_epochs={setting.pretrain_epochs}"]
        )
        inputs = Inputs(dataset=str(work / "dataset"), weights=setting.weights)
        TrainingJob("saliency-prompt", config, inputs, work / "pretrain", resume=True).run(Place(CPU), Control())
    epochs = [f"trainer.max_epochs={setting.finetune_epochs}", f"trainer.evaluate_every={setting.finetune_epochs // 5}"]
    config = load_training_config("knet", "tiny", overrides=[*common, *epochs])
    gt, val = str(work / "train.json"), str(work / "val.json")
    out = work / name.replace(" ", "_")
    begin = {"start": start} if Path(start).is_dir() else {"weights": start}
    inputs = Inputs(images=setting.images, gt=gt, val_images=setting.images, val_gt=val, **begin)
    TrainingJob("supervised", config, inputs, out, resume=True).run(Place(CPU), Control())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--gt", type=Path, required=True)
    parser.add_argument("--weights", required=True, help="K-Net's backbone; it stays frozen")
    parser.add_argument("--labeller", default="lab-color", help="what the pseudo-labels are made with")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--train", type=int, default=200)
    parser.add_argument("--pretrain-epochs", type=int, default=10)
    parser.add_argument("--finetune-epochs", type=int, default=25)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    began, work = time.time(), options.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    split(options.gt, work, options.train)
    labels = label(options.labeller, options.images.absolute(), options.gt, work / "dataset", [])
    setting = Setting(
        str(options.images.absolute()),
        options.weights,
        str(work),
        options.pretrain_epochs,
        options.finetune_epochs,
        tuple(options.set),
    )
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(len(ARMS), mp_context=multiprocessing.get_context("spawn")) as pool:
        for job in [pool.submit(run_arm, setting, name) for name in ARMS]:
            job.result()
    curves = {name: read_curves(work / name.replace(" ", "_")) for name in ARMS}
    arms: dict[str, Any] = {}
    for name, found in curves.items():
        arms[name] = {
            metric.removeprefix("val/"): {step: round(value, 2) for step, value in sorted(points.items())}
            for metric, points in found.items()
            if metric.startswith("val/")
        }
    result = {
        "benchmark": "real_photographs",
        "pseudo_labels": labels,
        "by_step": arms,
        "seeds": 1,
        "train": options.train,
        "weights": Path(options.weights).name,
        "labeller": options.labeller,
        "epochs": {"pretrain": options.pretrain_epochs, "finetune": options.finetune_epochs},
        "settings": [*COMMON, *options.set],
        "minutes": round((time.time() - began) / 60, 1),
        "environment": describe(CPU),
    }
    publish(result, options.json)
    if options.figure:
        metrics = ["val/AP", "val/AP_agnostic", "val/AR100_agnostic"]
        draw_curves({name: [found] for name, found in curves.items()}, options.figure, metrics)


if __name__ == "__main__":
    main()
