"""What the training loop costs: the time of a step of every recipe over the bare forward and backward of its network.

    python benchmarks/training.py --images DIR --gt F --dataset DATASET --weights W [--turns N] [--only NAME ...]

In turns, in one process: ten steps of `TrainingJob.run` (loader, loop, logging, optimizer), and ten times losses,
gradients and optimizer step of the same network on the same batches, held in memory. Ratios are the medians of the
turns' after the first, by the clock and, as `cpu_ratio`, of the processor time of the process that trains: there what
other programs take does not count, nor the loader's own process, which works beside it. Recipes at their `tiny` preset;
panoptic SOLOv2, matting and UniLSeg, which need other data, are left out. Peak memory is of both networks together, of
each recipe in a process of its own.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from environment import describe, publish

from saliency_prompt.pipeline.training.job import Inputs, TrainingJob
from saliency_prompt.pipeline.training.recipes import find_recipe
from saliency_prompt.schemas.training.densecl import load_densecl_config
from saliency_prompt.schemas.training.registry import MODELS, load_pretraining_config, load_training_config
from saliency_prompt.stages.training.fit import Control, Place
from saliency_prompt.stages.training.recipe import Part

CPU = torch.device("cpu")
TURN = 10  # steps


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
    config = load_training_config(model, "tiny", overrides=settings)
    if MODELS[model].recipe == "freesolo":
        inputs = Inputs(dataset=options.dataset, weights=options.weights)
        return TrainingJob("freesolo", config, inputs, out)
    base = "voc" if model == "contrastmask" else None
    inputs = Inputs(images=options.images, gt=options.gt, weights=options.weights, base=base)
    return TrainingJob("supervised", config, inputs, out)


class Seconds(NamedTuple):
    """Of a step: by the clock, and of this process's processor time."""

    wall: float
    cpu: float


class Watch:
    """Measures a turn of steps from its making on."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def read(self) -> Seconds:
        """Of one step of the turn until now."""
        now = time.perf_counter(), time.process_time()
        return Seconds(*((end - start) / TURN for start, end in zip(self._start, now, strict=True)))


def bare_steps(job: TrainingJob) -> Callable[[int], Seconds]:
    """A function that does the ten steps up to one, on batches held in memory, and says the seconds of one."""
    recipe = find_recipe(job.recipe)(job, Place(CPU)).recipe.train()
    optimizer = recipe.configure_optimizers()

    def take(last: int) -> Seconds:
        held = list(recipe.loader(Part(last - TURN, last, 0, 1, on_gpu=False)))
        watch = Watch()
        for batch in held:
            loss = torch.stack(list(recipe.losses(batch).values())).sum()
            optimizer.zero_grad()
            loss.backward()
            if recipe.loop.clip:
                torch.nn.utils.clip_grad_norm_(recipe.parameters(), recipe.loop.clip)
            optimizer.step()
            recipe.step += 1
        return watch.read()

    return take


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of a step in the loop and bare, and the peak of memory."""
    with tempfile.TemporaryDirectory() as folder:
        total = TURN * (options.turns + 1)
        job = make_job(name, options, Path(folder) / "run", total)
        take_bare = bare_steps(make_job(name, options, Path(folder) / "bare", total))
        take_bare(TURN)
        pairs: list[tuple[Seconds, Seconds]] = []
        watch = Watch()

        def report(progress: Any) -> None:
            """Between two entries of the curves the loop did ten steps; then the same network does ten, bare."""
            nonlocal watch
            loop = watch.read()
            if progress.step % TURN == 0:
                bare = take_bare(progress.step)
                if progress.step > TURN:
                    pairs.append((loop, bare))
                watch = Watch()

        job.run(Place(CPU), Control(report=report, max_steps=total))
        batch = find_recipe(job.recipe)(job, Place(CPU)).recipe.schedule.batch
    loop, bare = (statistics.median(one.wall for one in part) for part in zip(*pairs, strict=True))
    return {
        "milliseconds_in_the_loop": round(1e3 * loop, 1),
        "milliseconds_bare": round(1e3 * bare, 1),
        "ratio": round(statistics.median(one.wall / other.wall for one, other in pairs), 3),
        "cpu_ratio": round(statistics.median(one.cpu / other.cpu for one, other in pairs), 3),
        "ratios": sorted(round(one.wall / other.wall, 3) for one, other in pairs),
        "cpu_ratios": sorted(round(one.cpu / other.cpu, 3) for one, other in pairs),
        "samples_per_second": round(batch / loop, 2),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", required=True)
    parser.add_argument("--gt", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options)))
        return
    hosts = [name for name, spec in MODELS.items() if spec.pretraining is not None]
    trained = [name for name, spec in MODELS.items() if spec.recipe in ("supervised", "freesolo")]
    names = ["densecl", *(f"pretrain {name}" for name in hosts), *(f"train {name}" for name in trained)]
    found = {}
    for name in names if options.only is None else [one for one in names if any(part in one for part in options.only)]:
        words = [sys.executable, *sys.argv, "--one", name]
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        found[name] = json.loads(said.strip().splitlines()[-1])
        print(name, found[name], flush=True)
    result = {"benchmark": "training", "turns": options.turns, "recipes": found, "environment": describe(CPU)}
    publish(result, options.json)


if __name__ == "__main__":
    main()
