"""What the training loop costs: the time of a step of every recipe over the bare forward and backward of its network.

    python benchmarks/training.py --images DIR --gt F --dataset DATASET --weights W [--steps N] [--only NAME ...]

In one run and on the same samples: N steps of `TrainingJob.run` (loader, loop, logging, optimizer)
after a warm-up of as many, and N times losses and gradients of the same network on a batch of the same loader that is
held in memory, with the same optimizer step. Recipes at their `tiny` preset. Peak memory is the process's, of each
recipe in a process of its own.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from environment import describe, publish

from saliency_prompt.pipeline.training.job import Inputs, TrainingJob
from saliency_prompt.pipeline.training.recipes import find_recipe
from saliency_prompt.schemas.training.densecl import load_densecl_config
from saliency_prompt.schemas.training.registry import MODELS, load_pretraining_config, load_training_config
from saliency_prompt.stages.training.fit import Control, Place
from saliency_prompt.stages.training.recipe import Part

CPU = torch.device("cpu")


def make_job(name: str, options: argparse.Namespace, out: Path, steps: int) -> TrainingJob:
    """The job that a name stands for: `densecl`, `pretrain MODEL` or `train MODEL`."""
    if name == "densecl":
        settings = ["photos.workers=1", "train.log_every=10", "train.precision=fp32", "optim.batch_size=16"]
        settings += ["model.queue=1024", f"optim.epochs={1 + steps}"]
        return TrainingJob(
            "densecl", load_densecl_config("mini", overrides=settings), Inputs(photos=options.images), out
        )
    kind, model = name.split()
    settings = ["data.workers=1", "trainer.log_every=10", "trainer.precision=fp32", f"trainer.max_epochs={1 + steps}"]
    if kind == "pretrain":
        inputs = Inputs(dataset=options.dataset, weights=options.weights)
        return TrainingJob("saliency-prompt", load_pretraining_config(model, "tiny", overrides=settings), inputs, out)
    inputs = Inputs(images=options.images, gt=options.gt, weights=options.weights)
    return TrainingJob("supervised", load_training_config(model, "tiny", overrides=settings), inputs, out)


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a step in the loop and bare, and the peak of memory."""
    steps = options.steps
    with tempfile.TemporaryDirectory() as folder:
        job = make_job(name, options, Path(folder) / "run", 3 * steps)
        # entries every ten steps, and at the ends of epochs: the time between two of them
        seconds: dict[int, float] = {}

        def report(progress: Any) -> None:
            seconds[progress.step] = time.perf_counter()

        job.run(Place(CPU), Control(report=report, max_steps=2 * steps))
        noted = sorted(step for step in seconds if step >= steps // 2)
        loop = (seconds[noted[-1]] - seconds[noted[0]]) / (noted[-1] - noted[0])

        prepared = find_recipe(job.recipe)(make_job(name, options, Path(folder) / "bare", 3 * steps), Place(CPU))
        recipe = prepared.recipe.train()
        batches = iter(recipe.loader(Part(0, steps, 0, 1, on_gpu=False)))
        held = [next(batches) for _ in range(min(4, steps))]
        optimizer = recipe.configure_optimizers()
        taken = []
        for turn in range(steps + 4):
            start = time.perf_counter()
            loss = torch.stack(list(recipe.losses(held[turn % len(held)]).values())).sum()
            optimizer.zero_grad()
            loss.backward()
            if recipe.loop.clip:
                torch.nn.utils.clip_grad_norm_(recipe.parameters(), recipe.loop.clip)
            optimizer.step()
            recipe.step += 1
            if turn >= 4:
                taken.append(time.perf_counter() - start)
        bare = statistics.mean(taken)
    return {
        "milliseconds_in_the_loop": round(1e3 * loop, 1),
        "milliseconds_bare": round(1e3 * bare, 1),
        "ratio": round(loop / bare, 3),
        "samples_per_second": round(recipe.schedule.batch / loop, 2),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", required=True)
    parser.add_argument("--gt", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options)))
        return
    hosts = [name for name, spec in MODELS.items() if spec.pretraining is not None]
    names = ["densecl", *(f"pretrain {name}" for name in hosts), *(f"train {name}" for name in MODELS)]
    found = {}
    for name in names if options.only is None else [one for one in names if any(part in one for part in options.only)]:
        words = [sys.executable, *sys.argv, "--one", name]
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        found[name] = json.loads(said.strip().splitlines()[-1])
        print(name, found[name], flush=True)
    result = {"benchmark": "training", "steps": options.steps, "recipes": found, "environment": describe(CPU)}
    publish(result, options.json)


if __name__ == "__main__":
    main()
