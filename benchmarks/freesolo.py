"""Whether a detector that learned from free masks labels better than they do (FreeSOLO), on generated scenes.

    python benchmarks/freesolo.py --weights densecl-r18-mini --seeds 3 --images 200 --ablation --out results.json
    python benchmarks/freesolo.py --weights W --free DATASET --photos DIR --gt COCO.json --seeds 1 --out results.json

Of every seed: free masks of training scenes, by the backbone that every round starts from, and rounds on them; all are
judged without classes against the truth of the same scenes: the free masks, what the detector of each round finds (at
most 100 masks an image, as any detector is judged), and the labels that it leaves to the next round, which are its
confident finds alone. Then, if asked, round 0 in each way of the thesis's ablation, and what few labels give from the
last round and from the backbone. Of photographs, free masks are a data set that is there.
"""

import argparse
import json
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import describe, publish
from intervals import half_width
from rich.console import Console
from scenes import write_scenes

from saliency_prompt.pipeline.api import generate
from saliency_prompt.pipeline.evaluate import evaluate_dataset
from saliency_prompt.pipeline.generate import Job
from saliency_prompt.pipeline.generate import generate as label_photos
from saliency_prompt.pipeline.imports import photographs_of, with_masks
from saliency_prompt.pipeline.progress import Display
from saliency_prompt.pipeline.rounds import Rounds, label_here, run_rounds
from saliency_prompt.pipeline.training.evaluate import evaluate_run
from saliency_prompt.pipeline.training.job import Inputs, TrainingJob
from saliency_prompt.schemas.labels.detector import DetectorConfig
from saliency_prompt.schemas.labels.imported import ImportedConfig
from saliency_prompt.schemas.registry import load_label_config
from saliency_prompt.schemas.training.freesolo import FreeSoloTraining
from saliency_prompt.schemas.training.registry import load_training_config
from saliency_prompt.stages.device import resolve_device
from saliency_prompt.stages.training.fit import Control, Outcome, Place
from saliency_prompt.store.dataset import Dataset

NUMBERS = ("AP", "AP50", "AR100")
FREE = ["decode.short_side=512", "decode.long_side=512", "filters.min_center_y=null"]
ABLATION = {  # Table 6.7: d, and f
    "no average": "weak.average=0",
    "no maximum": "weak.maximum=0",
    "no pairwise": "weak.pairwise=0",
    "whole masks": "weak.masks=full",
    "with the embedding": "weak.embedding=4",
}


def told(found: dict[str, Any]) -> dict[str, float]:
    return {f"{kind} {name}": found[kind][name] for kind in ("segm", "bbox") for name in NUMBERS}


def scores_of(labels: Dataset | str, gt: Path) -> dict[str, float]:
    dataset = Dataset.open(labels) if isinstance(labels, str) else labels
    return told(evaluate_dataset(dataset, gt, all_images=True))


def configured(seed: int, args: argparse.Namespace, *more: str) -> FreeSoloTraining:
    settings = [f"trainer.seed={seed}", f"trainer.max_epochs={args.epochs}", "trainer.evaluate_every=0"]
    training = load_training_config("freesolo", "tiny", overrides=[*settings, *args.set, *more])
    assert isinstance(training, FreeSoloTraining)
    return training


def one_seed(seed: int, args: argparse.Namespace, base: Path) -> dict[str, Any]:
    photos, gt, learned = args.photos, args.gt, args.free
    if photos is None:
        write_scenes(base / "train", 1000 + seed, args.images)
        photos, gt, learned = base / "train" / "images", base / "train" / "annotations.json", base / "free"
        generate(photos, learned, weights=args.free_weights, settings=[*FREE, *args.free_set], device=args.device)
    found: dict[str, Any] = {"free": scores_of(str(learned), gt)}
    print(seed, "free", found["free"], flush=True)
    if args.truth:
        learned = base / "truth"
        imported = load_label_config("imported", None, None, ["features.weights=lab-color"])
        assert isinstance(imported, ImportedConfig)
        job = Job(str(learned), with_masks(imported, str(gt)), resolve_device(args.device))
        label_photos(photographs_of(str(gt), str(photos), None), job, Display(Console(quiet=True)), threading.Event())
    labels = load_label_config("detector", "freesolo-round", None, [f"detect.min_score={args.min_score}"])
    assert isinstance(labels, DetectorConfig)
    device = resolve_device(args.device)
    training = configured(seed, args)
    rounds = Rounds(str(learned), base / "work", args.weights, training, labels, device, count=args.rounds)

    def train(job: TrainingJob) -> Outcome:
        return job.run(Place(device), Control())

    def judge(name: str, run: Path) -> None:
        found[name] = told(evaluate_run(run, str(photos), str(gt), device).report["class_agnostic"])
        print(seed, name, found[name], flush=True)

    display = Display(Console(quiet=True))
    for round_ in run_rounds(rounds, train, label_here(display, threading.Event())):
        assert round_.labels is not None
        judge(f"round {round_.number}", rounds.run_folder(round_.number))
        found[f"labels {round_.number}"] = scores_of(round_.labels, gt)
        print(seed, f"labels {round_.number}", found[f"labels {round_.number}"], flush=True)
    for name, switch in ABLATION.items() if args.ablation else ():
        if switch in args.set:
            continue  # as round 0 is
        out = base / name.replace(" ", "-")
        inputs = Inputs(dataset=str(learned), weights=args.weights)
        train(TrainingJob("freesolo", configured(seed, args, switch), inputs, out))
        judge(name, out)
    if args.percent:
        found["few labels"] = few_labels(seed, args, base, rounds.run_folder(args.rounds - 1), device)
        print(seed, found["few labels"], flush=True)
    return found


def few_labels(
    seed: int, args: argparse.Namespace, base: Path, run: Path, device: torch.device
) -> dict[str, dict[str, float]]:
    """Class-wise and class-agnostic AP on other scenes, of SOLOv2 from the last round and from the backbone."""
    write_scenes(base / "val", 5000 + seed, args.images // 2)
    photos, gt = base / "train" / "images", base / "train" / "annotations.json"
    settings = [f"trainer.seed={seed}", f"trainer.max_epochs={args.tune_epochs}", "trainer.evaluate_every=0"]
    found = {}
    for name, begin in (("from freesolo", {"start": str(run)}), ("from the backbone", {"weights": args.weights})):
        config = load_training_config("solov2", "tiny", overrides=settings)
        inputs = Inputs(images=str(photos), gt=str(gt), percent=args.percent, **begin)  # type: ignore[arg-type]
        out = base / name.replace(" ", "-")
        TrainingJob("supervised", config, inputs, out).run(Place(device), Control())
        judged = evaluate_run(out, str(base / "val" / "images"), str(base / "val" / "annotations.json"), device)
        found[name] = judged.numbers
    return found


def paired(seeds: list[dict[str, Any]], better: str, than: str) -> dict[str, dict[str, float | None]]:
    """Mean difference over seeds and half the width of its 95 % interval; None of one seed."""
    found = {}
    for name in seeds[0][than]:
        gain = [one[better][name] - one[than][name] for one in seeds]
        half = half_width(gain)
        found[name] = {"mean": round(float(np.mean(gain)), 2), "half": None if half is None else round(half, 2)}
    return found


def gains(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    pairs = [("round 0", "free"), ("labels 0", "free"), ("round 1", "round 0"), ("round 1", "free")]
    pairs += [("labels 1", "labels 0"), ("labels 1", "free")]
    pairs += [(name, "round 0") for name in ABLATION]
    return {
        f"{better} over {than}": paired(seeds, better, than)
        for better, than in pairs
        if all(better in one and than in one for one in seeds)
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", default="densecl-r18-mini")
    parser.add_argument("--free-weights", help="what makes the free masks, if not --weights")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0, help="to run seeds beside each other; see --merge")
    parser.add_argument("--merge", type=Path, nargs="+", default=[], help="only join these results")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--photos", type=Path, help="photographs instead of scenes; with --gt and --free")
    parser.add_argument("--gt", type=Path, help="what judges them")
    parser.add_argument("--free", type=Path, help="their free masks, a complete data set")
    parser.add_argument("--min-score", type=float, default=0.3)
    parser.add_argument("--percent", type=float, default=0.0, help="of labels to fine-tune on; 0 leaves that out")
    parser.add_argument("--tune-epochs", type=int, default=60)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", action="append", default=[], help="of training")
    parser.add_argument("--free-set", action="append", default=[], help="of the free masks")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--truth", action="store_true", help="learn from the true masks instead: does it learn at all?")
    parser.add_argument("--ablation", action="store_true", help="round 0 in other ways, too")
    args = parser.parse_args()
    args.free_weights = args.free_weights or args.weights
    if len({args.photos is None, args.gt is None, args.free is None}) > 1 or (args.photos and args.percent):
        parser.error("photographs need --photos, --gt and --free, and no --percent, which is of scenes")
    result: dict[str, Any] = {"arguments": {}, "environment": describe(resolve_device(args.device)), "seeds": []}
    result["arguments"] = {k: str(v) for k, v in vars(args).items() if k not in ("out", "merge")}
    for path in args.merge:
        part = json.loads(path.read_text())
        result |= {name: part[name] for name in ("arguments", "environment")}
        result["seeds"] += part["seeds"]
    for seed in () if args.merge else range(args.first_seed, args.first_seed + args.seeds):
        with tempfile.TemporaryDirectory() as base:
            result["seeds"].append(one_seed(seed, args, Path(base)))
    publish(result | {"gains": gains(result["seeds"])}, args.out)


if __name__ == "__main__":
    main()
