"""Whether every detector can learn eight photographs by heart: mask and box AP on the photographs it was trained on.

    python benchmarks/by_heart.py --images DIR --gt F [--models solo solov2 ...] [--steps N] [--set K=V ...] [--json F]

A model that cannot has a fault in its targets, its losses or what it makes of its answers, whatever its size: each is
trained at its `tiny` preset by the program's own loop. The photographs are those whose smallest object is largest,
among those with two to four objects and no crowd, since the masks of small pictures are coarse. The backbone is frozen,
and its maps of each photograph are computed once.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from environment import describe, publish
from frozen import remember

from saliency_prompt.pipeline.training.evaluate import evaluate_run
from saliency_prompt.pipeline.training.job import Inputs, Prepared, TrainingJob
from saliency_prompt.pipeline.training.recipes import RECIPES, prepare_supervised
from saliency_prompt.schemas.training.registry import MODELS, load_training_config
from saliency_prompt.stages.training.fit import Control, Place

CPU = torch.device("cpu")
COUNT = 8
FEW = range(2, 5)  # objects
# members of SOLO's family, whose tiny grids and ranges are for objects of tiny pictures: large objects would get masks
# at stride 16, too coarse to agree with the truth to the pixel
FAMILY = [
    "model.grids=[16,12,8,6,4]",
    "model.ranges=[[1,128],[96,400],[300,600],[500,800],[700,2048]]",
]


def choose(gt: Path, out: Path) -> list[str]:
    """Write the annotations of the chosen photographs, and give their names."""
    content = json.loads(gt.read_text(encoding="utf-8"))
    objects: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
    for one in content["annotations"]:
        objects[one["image_id"]].append(one)

    def smallest(image: dict[str, Any]) -> float:
        own = objects[image["id"]]
        if len(own) not in FEW or any(one["iscrowd"] for one in own):
            return 0.0
        return float(min(one["area"] for one in own)) ** 0.5 / min(image["height"], image["width"])

    images = sorted(content["images"], key=smallest, reverse=True)[:COUNT]
    annotations = [one for image in images for one in objects[image["id"]]]
    kinds = {one["category_id"] for one in annotations}
    categories = [one for one in content["categories"] if one["id"] in kinds]
    out.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return [image["file_name"] for image in images]


def prepare(job: TrainingJob, place: Place) -> Prepared:
    """Supervised training with a backbone that computes the maps of an image once."""
    prepared = prepare_supervised(job, place)
    remember(prepared.recipe.host.backbone, {})
    return prepared


def learn(model: str, options: argparse.Namespace, gt: Path, out: Path) -> dict[str, Any]:
    """Train and judge one model."""
    settings = [
        f"data.batch_size={options.batch}",
        f"data.repeat={max(1, options.steps * options.batch // COUNT)}",
        f"data.short_side={options.side}",
        f"data.long_side={2 * options.side}",
        "data.flip=0",
        "data.workers=0",
        "model.freeze=all",
        "trainer.max_epochs=1",
        "trainer.optimizer=adamw",
        f"trainer.lr={options.rate}",
        f"trainer.lr_batch={options.batch}",
        "trainer.weight_decay=0.0001",
        "trainer.warmup_steps=20",
        "trainer.schedule=cosine",
        "trainer.clip=10",
        "trainer.precision=fp32",
        "trainer.evaluate_every=0",
        "trainer.log_every=25",
        *(FAMILY if "solo" in model else []),
        *options.set,
    ]
    config = load_training_config(model, "tiny", overrides=settings)
    inputs = Inputs(images=options.images, gt=str(gt), weights=options.weights)
    start = time.perf_counter()
    told = Control(report=lambda progress: print(model, progress.step, progress.values, flush=True))
    TrainingJob("by-heart", config, inputs, out).run(Place(CPU), told)
    seconds = time.perf_counter() - start
    report = evaluate_run(out, options.images, str(gt), CPU).report["classes"]
    return {
        **{f"mask_{name}": round(report["segm"][name], 1) for name in ("AP", "AP50", "AP75")},
        "box_AP": round(report["bbox"]["AP"], 1),
        "seconds": round(seconds),
        "steps": options.steps,
        "weights": options.weights,
        "settings": settings,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", required=True)
    parser.add_argument("--gt", type=Path, required=True)
    parser.add_argument("--weights", default="densecl-r18-mini")
    parser.add_argument(
        "--models", nargs="+", default=[name for name, one in MODELS.items() if one.recipe == "supervised"]
    )
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found: dict[str, Any] = {}
    if options.json is not None and options.json.exists():  # results of other models stay
        found = json.loads(options.json.read_text(encoding="utf-8"))["models"]
    RECIPES["by-heart"] = prepare
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        gt = Path(folder, "gt.json")
        names = choose(options.gt, gt)
        for model in options.models:
            found[model] = learn(model, options, gt, Path(folder, model))
            publish(described(names, found), options.json)


def described(names: list[str], found: dict[str, Any]) -> dict[str, Any]:
    """The result so far."""
    return {
        "benchmark": "by_heart",
        "photographs": names,
        "models": found,
        "environment": describe(CPU),
    }


if __name__ == "__main__":
    main()
