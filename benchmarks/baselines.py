"""Learning curves of all models on the same data, in one loop, without pre-training (Saliency Prompt, Figures 1, 3, 4).

    python benchmarks/baselines.py --work DIR --json F [--models knet queryinst ...] [--figure F] [--minutes 25]

Generated scenes (scenes.py), the shipped backbone, frozen; query-based models with AdamW and CNNs with SGD, as their
papers have it, each at its `tiny` preset. A run that is finished is not run again, and one that was stopped goes on.
"""

import argparse
import threading
from pathlib import Path
from typing import Any

from environment import describe, publish
from scenes import write_scenes
from sp_world import CPU

from saliency_prompt.pipeline.curves import draw_curves, read_curves
from saliency_prompt.pipeline.training.job import Inputs, TrainingJob
from saliency_prompt.schemas.training.registry import load_training_config
from saliency_prompt.stages.training.fit import Control, Place
from saliency_prompt.store.run import Run

MODELS = {
    "knet": ["trainer.lr=1e-3", "model.queries=16"],
    "queryinst": ["trainer.lr=1e-3", "model.queries=16"],
    "mask2former": ["trainer.lr=1e-3", "model.queries=16"],
    "solov2": [],
    "maskrcnn": [],
}
COMMON = [
    "data.batch_size=8",
    "data.short_side=128",
    "data.long_side=128",
    "data.workers=0",
    "model.freeze=all",
    "trainer.lr_batch=8",
    "trainer.precision=fp32",
]
METRICS = ("val/AP", "val/AP_agnostic", "val/AR100_agnostic")


def learn(model: str, work: Path, epochs: int, evaluations: int, stop: threading.Event) -> bool:
    """Train one model, or go on with it; whether it is done."""
    out = work / model
    settings = [*COMMON, *MODELS[model], f"trainer.max_epochs={epochs}"]
    settings += [f"trainer.evaluate_every={max(1, epochs // evaluations)}"]
    config = load_training_config(model, "tiny", overrides=settings)
    train, val = work / "train", work / "held_out"
    inputs = Inputs(
        images=str(train / "images"),
        gt=str(train / "annotations.json"),
        val_images=str(val / "images"),
        val_gt=str(val / "annotations.json"),
        weights="densecl-r18-mini",
    )
    job = TrainingJob("supervised", config, inputs, out)
    return job.run(Place(CPU), Control(stop=stop)).finished


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--scenes", type=int, nargs=2, default=(200, 80), help="to learn from, and held out")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--evaluations", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    stop = threading.Event()
    clock = threading.Timer(60 * options.minutes, stop.set)
    clock.daemon = True
    clock.start()
    for seed, (name, count) in enumerate(zip(("train", "held_out"), options.scenes, strict=True), start=21):
        if not (options.work / name / "annotations.json").exists():
            write_scenes(options.work / name, seed, count)
    curves: dict[str, Any] = {}
    for model in options.models:
        out = options.work / model
        done = options.work / f"{model}.done"
        due = not stop.is_set() and not done.exists()
        if due and learn(model, options.work, options.epochs, options.evaluations, stop):
            done.touch()
        if Run(out).checkpoints():
            curves[model] = read_curves(out)
    found = {
        model: {
            metric: {str(step): round(value, 2) for step, value in one.get(metric, {}).items()} for metric in METRICS
        }
        for model, one in curves.items()
    }
    size = {"scenes": list(options.scenes), "epochs": options.epochs, "settings": COMMON, "models": MODELS}
    publish({"benchmark": "baselines", **size, "curves": found, "environment": describe(CPU)}, options.json)
    if options.figure and curves:
        draw_curves({model: [one] for model, one in curves.items()}, options.figure, list(METRICS))


if __name__ == "__main__":
    main()
