"""What Ray adds to the main job: time per image, start-up, scaling, and the driver's memory.

    python benchmarks/engine.py --photos DIR [--limit 5000] [--rounds 3] [--json F]

Overhead: the command line runs the same job in one process and on a local Ray with one worker, in turn; the ratio is
the median over rounds of their times per image in the same round: `ray_over_in_process` from the first commit to the
last, as in a long run, `whole_run` from the first shard begun, which on a short one counts Ray's own start too.
Scaling: one worker and two, one CPU thread each, a quarter of the photographs. Start-up: from the start of the program
to the first shard begun.
Memory: the scheduler's loop over simulated shards that end at once, by number of shards.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from environment import describe

from saliency_prompt.cluster.drive import Done, Event, Ready, drive
from saliency_prompt.cluster.scheduler import Scheduler, Task
from saliency_prompt.pipeline.journal import read_journal
from saliency_prompt.schemas.cluster import Workers
from saliency_prompt.store.dataset import Dataset

SIZE = ("decode.short_side=96", "decode.long_side=192", "features.level=c5", "filters.min_score=0.3")
JOBS = {
    "resnet50": ("features.weights=random", "features.arch=resnet50", "features.precision=fp32"),
    "null": ("features.weights=lab-color",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--limit", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--simulate", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.simulate:
        print(json.dumps(simulate(arguments.simulate)))
        return
    result: dict[str, Any] = {"benchmark": "engine", "memory": [isolated(n) for n in (20_000, 200_000, 2_000_000)]}
    with tempfile.TemporaryDirectory(prefix="en", ignore_cleanup_errors=True) as folder:
        os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled", RAY_TMPDIR=folder)
        photos = choose(arguments.photos, arguments.limit, Path(folder))
        result["images"], result["rounds"] = arguments.limit, arguments.rounds
        for name, job in JOBS.items():
            result[name] = compare(photos, [*SIZE, *job], arguments.rounds, Path(folder))
            print(name, json.dumps(result[name]), flush=True)
    text = json.dumps({**result, "environment": describe(torch.device("cpu"))}, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


def choose(folder: Path, limit: int, base: Path) -> Path:
    """The first photographs of a folder."""
    chosen = base / "photos"
    chosen.mkdir()
    for path in sorted(p for p in folder.rglob("*.jpg"))[:limit]:
        (chosen / path.name).symlink_to(path.resolve())
    (base / "photos.txt").write_text("\n".join(str(p.resolve()) for p in sorted(chosen.iterdir())) + "\n")
    return base / "photos.txt"


def compare(photos: Path, settings: list[str], rounds: int, base: Path) -> dict[str, Any]:
    """One job, every way, `rounds` times."""
    ways = {
        "alone": [],
        "ray": ray(1, 2),
        "one_thread": ray(1, 1),
        "two_workers": ray(2, 1),
    }
    # Two shards in flight per worker: with as many shards for each, the ends of the runs are alike.
    quarter = base / "quarter.txt"
    lines = photos.read_text().splitlines()
    quarter.write_text("\n".join(lines[: len(lines) // 4]) + "\n")
    smaller = [*settings, "plan.shard_size=128"]
    runs: dict[str, list[Run]] = {way: [] for way in ways}
    for turn in range(rounds):
        for way, options in ways.items():
            source, chosen = (photos, settings) if way in ("alone", "ray") else (quarter, smaller)
            runs[way].append(run(source, chosen, options, base / f"{len(settings)}-{turn}-{way}"))

    def ratios(field: str, one: str, other: str) -> list[float]:
        return [getattr(a, field) / getattr(b, field) for a, b in zip(runs[one], runs[other], strict=True)]

    steady = ratios("steady", "ray", "alone")
    return {
        "ms_per_image": {way: round(1e3 * statistics.median(r.whole for r in found), 3) for way, found in runs.items()},
        "ray_over_in_process": round(statistics.median(steady), 4),
        "ray_over_in_process_all": [round(r, 4) for r in steady],
        "whole_run": round(statistics.median(ratios("whole", "ray", "alone")), 4),
        "speedup_of_two_workers": round(statistics.median(ratios("whole", "one_thread", "two_workers")), 3),
        "startup_seconds": {way: round(statistics.median(r.startup for r in found), 2) for way, found in runs.items()},
    }


def ray(workers: int, cpus: int) -> list[str]:
    """Options of `generate`."""
    count = str(workers)
    worker = ["--gpus-per-worker", "0", "--cpus-per-worker", str(cpus)]
    return ["--ray", "local", *worker, "--min-workers", count, "--max-workers", count]


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds per image while shards ran, the same after the first commit, and seconds until the first shard began."""

    whole: float
    steady: float
    startup: float


def run(photos: Path, settings: list[str], options: list[str], out: Path) -> Run:
    """One job by the command line."""
    sets = [part for setting in settings for part in ("--set", setting)]
    program = "from saliency_prompt.cli.app import main; main()"
    command = [sys.executable, "-c", program, "generate", str(photos), "--out", str(out), *sets, *options]
    start = time.time()
    subprocess.run(command, check=True, capture_output=True)
    dataset = Dataset.open(str(out))
    begun = min(commit.info.started for commit in dataset.commits())
    commits = [event for event in read_journal(dataset) if event["event"] == "shard_committed"]
    first, last = commits[0], commits[-1]
    later = dataset.card.n_images - first["images"]
    return Run(
        whole=(last["time"] - begun) / dataset.card.n_images,
        steady=(last["time"] - first["time"]) / later,
        startup=begun - start,
    )


def isolated(shards: int) -> dict[str, Any]:
    """`simulate` in a process of its own, since memory is counted at its peak."""
    command = [sys.executable, __file__, "--simulate", str(shards)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def simulate(shards: int) -> dict[str, Any]:
    """The driver's loop over shards that end at once; memory beyond what the program takes empty."""

    class Instant:
        """64 workers that do nothing."""

        def __init__(self) -> None:
            self.events: deque[Event] = deque()
            self.count = 0

        def start(self) -> int:
            self.count += 1
            self.events.append(Ready(self.count, None))
            return self.count

        def submit(self, worker: int, task: Task) -> None:
            self.events.append(Done(worker, task, None))

        def wait(self, timeout: float) -> list[Event]:
            del timeout
            found = list(self.events)
            self.events.clear()
            return found

        def release(self, worker: int) -> None:
            del worker

    import numpy as np

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    scheduler = Scheduler(np.arange(shards, dtype=np.int32), lambda _: 1024)
    workers = Workers(min_workers=64, max_workers=64, gpus_per_worker=0)
    events = sum(1 for _ in drive(scheduler, Instant(), workers, stop=threading.Event(), tick=lambda _: None))
    seconds = time.perf_counter() - start
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "shards": shards,
        "events": events,
        "mb_added": round(grown / 1024, 1),
        "us_per_shard": round(1e6 * seconds / shards, 2),
    }


if __name__ == "__main__":
    main()
