"""UniLSeg on generated scenes: its parts one by one (Table 8), and pairs that an engine made (Fig. 5), paired by seed.

    python benchmarks/unilseg.py parts 0 --json F         # baseline, + pre-fusion, + language path, + vision path
    python benchmarks/unilseg.py pretraining 0 --json F   # few references alone, with pairs jointly, pairs first

Under a seed every arm sees the same scenes. The engine of `pretraining` is the real one, on the branch `boxes`, with
models of classical vision: a segmenter whose masks are coarse, and a captioner that knows colours and shapes alone,
mistakes some, and does not see that there are two red circles. Results are added to F, so that a part can be repeated.
"""

import argparse
import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import cv2
import numpy as np
import torch
from environment import describe

from referring_scenes import COLOURS, write_word_scenes
from saliency_prompt.pipeline.generate import Job, generate
from saliency_prompt.pipeline.sources import open_source
from saliency_prompt.pipeline.training.job import Inputs, TrainingJob
from saliency_prompt.schemas.registry import load_label_config
from saliency_prompt.schemas.training.unilseg import load_unilseg_config
from saliency_prompt.stages.producers.annotate.found import Chain
from saliency_prompt.stages.producers.annotate.load import LoadedAnnotator, read_boxes
from saliency_prompt.stages.producers.registry import LOADERS
from saliency_prompt.stages.training.fit import Control, Place

CPU = torch.device("cpu")
HELD = 10**6  # seed of the scenes that nobody trains on
BATCH = 16
NARROW = [
    "trainer.schedule=cosine",
    "trainer.lr=2e-3",
    "model.swin.width=24",
    "model.swin.heads=[1,2,4,8]",
    "model.channels=48",
    "model.embedding=48",
    "model.hidden=96",
]
ALL = {"prefusion": "paper", "vision_path": "paper", "language_path": "paper"}
NONE = dict.fromkeys(ALL, "none")
ARMS = {
    "baseline": NONE,
    "+PF": {**NONE, "prefusion": "paper"},
    "+PF+LP": {**ALL, "vision_path": "none"},
    "+PF+LP+VP": ALL,
}


class Captioner:
    """Says which colour and shape it sees in a box; one time in eight another colour."""

    name, sha256 = "classical", hashlib.sha256(b"captioner 1").hexdigest()

    def to(self, *_: Any) -> "Captioner":
        """See `roles`."""
        return self

    def captions(self, images: Any) -> list[str]:
        """See `roles.Captioner`."""
        texts = []
        for image in images:
            mask = foreground(image)
            mean = image[mask].mean(0) if mask.any() else image.mean((0, 1))
            distances = {name: float(np.abs(mean - colour).sum()) for name, colour in COLOURS.items()}
            order = sorted(distances, key=distances.__getitem__)
            wrong = hashlib.sha256(image.tobytes()).digest()[0] < 32
            fill = mask.mean()
            shape = "square" if fill > 0.9 else "circle" if fill > 0.65 else "triangle"
            texts.append(f"the {order[int(wrong)]} {shape}")
        return texts


class Segmenter:
    """What differs from the ground in a box, a little too large and with rough edges."""

    name, sha256 = "classical", hashlib.sha256(b"segmenter 1").hexdigest()

    def to(self, *_: Any) -> "Segmenter":
        """See `roles`."""
        return self

    def masks(self, image: Any, boxes_n4: Any) -> tuple[Any, Any]:
        """See `roles.MaskSegmenter`."""
        shares = np.zeros((len(boxes_n4), *image.shape[:2]), np.float32)
        for place, box in enumerate(boxes_n4):
            left, top, right, bottom = (int(value) for value in box)
            part = foreground(image[top:bottom, left:right]).astype(np.uint8)
            shares[place, top:bottom, left:right] = cv2.dilate(part, np.ones((3, 3), np.uint8))
        return shares, np.full(len(boxes_n4), 0.9, np.float32)


def foreground(image: Any) -> Any:
    """Pixels of strong colour: the ground is grey."""
    spread = image.max(2).astype(int) - image.min(2)
    return spread > 80


def train(
    out: Path, inputs: dict[str, str], held: Path, epochs: int, seed: int, *overrides: str
) -> dict[str, float | int]:
    """A run, and what it reaches on held scenes."""
    set_ = [*NARROW, f"trainer.seed={seed}", f"trainer.max_epochs={epochs}", *overrides]
    whole = Inputs(**inputs, val_gt=str(held), val_images=str(held.parent / "images"))
    start = time.perf_counter()
    job = TrainingJob("unilseg", load_unilseg_config("tiny", overrides=set_), whole, out)
    outcome = job.run(Place(CPU), Control())
    return {**outcome.values, "steps": outcome.step, "seconds": round(time.perf_counter() - start)}


def references(folder: Path, seed: int, scenes: int) -> dict[str, str]:
    file = write_word_scenes(folder, seed, scenes)
    return {"gt": str(file), "images": str(file.parent / "images")}


class Silence:
    """Tells nobody."""

    def planned(self, *_: Any) -> None:
        """See `Reporter`."""

    def running(self, *_: Any) -> None:
        """See `Reporter`."""

    def committed(self, *_: Any) -> None:
        """See `Reporter`."""


def make_pairs(folder: Path, seed: int, scenes: int) -> tuple[str, int]:
    """A sealed data set of the engine, from photographs and boxes alone; and its pairs."""
    given = references(folder / "scenes", seed, scenes)
    boxes = read_boxes(given["gt"])
    LOADERS["annotate"] = lambda *_: LoadedAnnotator(
        Chain(mask_segmenter=Segmenter(), captioner=Captioner(), boxes=boxes)
    )
    config = load_label_config(
        "annotate",
        overrides=["annotate.branch=boxes", "boxes.min_side=4", "decode.short_side=64", "decode.long_side=64"],
    )
    out = str(folder / "pairs")
    made, _ = generate(open_source(given["images"]), Job(out, config, CPU), Silence(), threading.Event())
    return out, made.counts().masks


Arm = Callable[[], dict[str, Any]]


def parts(work: Path, seed: int, held: Path, share: float) -> dict[str, Arm]:
    given = references(work / "train", seed, round(1400 * share))

    def arm(name: str, forms: dict[str, str]) -> Arm:
        overrides = [f"model.{part}={form}" for part, form in forms.items()]
        return lambda: train(work / name, given, held, 1, seed, *overrides)

    return {name: arm(name, forms) for name, forms in ARMS.items()}


def pretraining(work: Path, seed: int, held: Path, share: float) -> dict[str, Arm]:
    """All arms take about the same number of steps in all; `pairs alone` is the first half of the next arm."""
    few = references(work / "few", seed, round(100 * share))
    pairs, count = make_pairs(work / "made", seed + 100, round(1000 * share))
    labels = len(json.loads(Path(few["gt"]).read_text())["refs"])
    both, first = {"dataset": pairs, **few}, work / "first"

    def epochs(size: int, steps: float) -> int:
        return max(1, round(steps * share / (size // BATCH)))

    whole = max(2, epochs(count + labels, 800))
    stages = (f"trainer.pretrain_epochs={whole // 2}", "trainer.pretrain_lr=2e-3")
    return {
        "references alone": lambda: train(work / "alone", few, held, epochs(labels, 800), seed),
        "jointly": lambda: train(work / "joint", both, held, whole, seed),
        "pairs alone": lambda: train(first, {"dataset": pairs}, held, epochs(count, 400), seed),
        "pairs, then references": lambda: train(
            work / "then", {**few, "start": str(first)}, held, epochs(labels, 400), seed
        ),
        "pairs, then both": lambda: train(work / "two", both, held, whole - whole // 2, seed, *stages),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["parts", "pretraining"])
    parser.add_argument("seed", type=int)
    parser.add_argument("--arms", nargs="*", help="Some of them; `pairs, then references` needs `pairs alone`.")
    parser.add_argument("--share", type=float, default=1.0, help="Of scenes and steps; below 1 for a trial.")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    work = Path(mkdtemp())
    held = write_word_scenes(work / "held", HELD, max(2, round(60 * options.share)), texts=5)
    arms = {"parts": parts, "pretraining": pretraining}[options.what](work, options.seed, held, options.share)
    for name, arm in arms.items():
        if options.arms and name not in options.arms:
            continue
        found = arm()
        print(options.seed, name, found, flush=True)
        old = json.loads(options.json.read_text()) if options.json.exists() else {}
        old.setdefault(options.what, {}).setdefault(str(options.seed), {})[name] = found
        options.json.write_text(json.dumps({**old, "environment": describe(CPU)}, indent=2) + "\n")
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
