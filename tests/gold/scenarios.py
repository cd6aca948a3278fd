"""Training runs whose losses are recorded: each command as a user types it, on scenes that are drawn here.

`python tests/gold/scenarios.py losses.json` records; `test_gold.py` compares.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))

from commands import Program
from corpus import write_photos, write_scenes

DENSECL = (
    "--arch resnet18 --epochs 20 --batch-size 4 --set photos.side=48 --set augment.size=64 --set model.queue=16 "
    "--set train.precision=fp32 --set train.log_every=1 --set optim.lr=0.05"
)
MODEL = (
    "--preset tiny --set data.short_side=64 --set data.long_side=96 --set data.workers=0 --set data.batch_size=4 "
    "--set model.queries=8 --set trainer.precision=fp32 --set trainer.max_epochs=7 --set trainer.log_every=1 "
    "--set trainer.evaluate_every=0"
)
LABELS = (
    "--weights random --set features.arch=resnet18 --set features.precision=fp32 --set decode.short_side=256 "
    "--set decode.long_side=512 --set plan.shard_size=5 --set filters.min_score=0 --set filters.keep_best=true"
)
# Sums are the same bits only with the same instructions and number of threads: the oldest and one, everywhere.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "ATEN_CPU_CAPABILITY": "default",
}
STEPS = 10


@dataclass(frozen=True)
class World:
    """Photographs for DenseCL, scenes with annotations, and pseudo-labels of the scenes."""

    photos: Path
    scenes: Path
    gt: Path
    dataset: Path


def run(*words: object) -> None:
    """Give a command; one of several processes to the installed program: they are started as it was itself."""
    if "--processes" in words:
        told = [Path(sys.executable).with_name("saliency-prompt"), *map(str, words)]
        done = subprocess.run(told, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, check=False)
    else:
        done = Program(*words, env=ENVIRONMENT).finish()
    # 130 is what the recorded version ended with when --max-steps cut a run short
    assert done.returncode in (0, 130), done.stderr


def make_world(base: Path) -> World:
    """Draw it."""
    write_photos(base / "photos", 6, height=48, width=64)
    gt = write_scenes(base / "scenes", 12)
    run("generate", base / "scenes", "--out", base / "data", *LABELS.split())
    return World(base / "photos", base / "scenes", gt, base / "data")


def labels_hash(base: Path) -> str:
    """Root hash of labelled scenes."""
    write_scenes(base / "lab" / "scenes", 6)
    words = "--weights lab-color --set decode.short_side=128 --set plan.shard_size=4 --set filters.min_score=0"
    run("generate", base / "lab" / "scenes", "--out", base / "lab" / "data", *words.split())
    root_hash: str = json.loads((base / "lab" / "data" / "sealed.json").read_text())["root_hash"]
    return root_hash


def command(kind: str, world: World, out: Path) -> list[object]:
    """The words of a training run."""
    if kind == "densecl":
        return ["densecl", world.photos, "--out", out, "--device", "cpu", *DENSECL.split()]
    words: list[object] = ["--images", world.scenes, "--out", out, "--device", "cpu", *MODEL.split()]
    if kind == "pretrain":
        return ["pretrain", world.dataset, "--model", "knet", "--weights", "random", *words]
    return ["finetune", "random", "--gt", world.gt, *words]


def losses(out: Path) -> list[float]:
    """Of every step; after a resume the later entry counts."""
    lines = [json.loads(line) for line in (out / "curves.jsonl").read_text().splitlines()]
    found = {line["step"]: line["loss"] for line in lines if "loss" in line}
    return [found[step] for step in sorted(found)]


def main(target: Path) -> None:
    """Record."""
    recorded: dict[str, object] = {}
    with TemporaryDirectory() as folder:
        world = make_world(Path(folder))
        recorded["root_hashes"] = [labels_hash(Path(folder))]  # of this processor; add those of others
        for kind in ("densecl", "pretrain", "finetune"):
            for processes in (1, 2):
                out = Path(folder) / f"{kind}{processes}"
                run(*command(kind, world, out), "--processes", processes, "--max-steps", STEPS)
                recorded[f"{kind}, {processes} processes"] = losses(out)
    target.write_text(json.dumps(recorded, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
