"""Masks of real photographs by every generator: class-agnostic AP and AR, and what they cost.

    python benchmarks/masks.py --images DIR --gt COCO.json [--half tune|report|all] [--every N] [--arms NAME ...]
        [--set KEY=VALUE ...] [--proxy WEIGHTS] [--cache DIR] [--json F] [--figure F --show LICENCES.json]

Photographs are sorted by name: every second one is for tuning, the others for reporting. With `--cache`, features are
read from there if they are there, and times of the backbone mean nothing. Every arm has a process of its own, whose
peak of memory is reported. What is in F already is kept; `--proxy` adds arms of a ResNet-50 with caffe-style strides.
"""

import argparse
import hashlib
import json
import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from environment import describe, publish

from saliency_prompt.schemas.records import ImageRef
from saliency_prompt.schemas.registry import load_label_config
from saliency_prompt.schemas.section import resolve
from saliency_prompt.stages.decode import decode_image
from saliency_prompt.stages.device import automatic
from saliency_prompt.stages.evaluate import evaluate_coco
from saliency_prompt.stages.features import FeatureExtractor
from saliency_prompt.stages.overlay import draw_overlay
from saliency_prompt.stages.producers.contract import PixelBatch, Prior
from saliency_prompt.stages.producers.registry import LOADERS

CPU = torch.device("cpu")
VIT = ["features.weights=dinov2-s14-focus", "decode.short_side=448", "decode.long_side=896", "decode.align=14"]
FOUND = "DINOv2, saliency"
FILLED = "DINOv2, saliency filled by merge"  # merge is given the masks of FOUND
LAB, MINI = "features.weights=lab-color", "features.weights=densecl-r18-mini"
MASKNESS = ["filters.min_score=null", "filters.min_maskness=0.7"]  # the thesis's cut; else the code's
CONV = ["features.level=c4", "decode.align=16"]
ARMS: dict[str, tuple[str, str, list[str]]] = {
    "lab-color, saliency": ("saliency", "saliency-prompt", [LAB]),
    "lab-color, saliency by maskness": ("saliency", "saliency-prompt", [LAB, *MASKNESS]),
    FOUND: ("saliency", "saliency-prompt", VIT),
    "DINOv2, saliency by maskness": ("saliency", "saliency-prompt", [*VIT, *MASKNESS]),
    "DenseCL mini, saliency": ("saliency", "saliency-prompt", [MINI]),
    "lab-color, merge": ("merge", "merge", [LAB, "features.level=c4"]),
    "DenseCL mini, merge": ("merge", "merge", [MINI, *CONV]),
    "DINOv2, merge": ("merge", "merge", []),
    "DINOv2, merge, 1000 masks": ("merge", "merge", ["merge.max_masks=1000"]),
    FILLED: ("merge", "merge", ["merge.fill=0.5"]),
    "DINOv2, merge-large": ("merge", "merge-large", []),
    "DINOv2, ncut": ("ncut", "maskcut", []),
    "DINOv2, one cut": ("ncut", "onecut", []),
}


@dataclass
class Tally:
    """Detections and costs of one arm."""

    detections: list[dict[str, Any]] = field(default_factory=list)
    masks: dict[int, Any] = field(default_factory=dict)
    forward_s: float = 0.0
    bare_s: float = 0.0
    record_s: float = 0.0
    peak_gb: float = 0.0


def cached(extractor: FeatureExtractor, folder: Path, key: str) -> None:
    """Let an extractor keep what it gives, by what it is given."""
    forward = extractor.forward

    def read_or_run(images_B3HW: torch.Tensor) -> torch.Tensor:
        given = hashlib.sha256(images_B3HW.float().contiguous().numpy().tobytes())
        path = folder / f"{hashlib.sha256(key.encode() + given.digest()).hexdigest()[:24]}.npy"
        if path.exists():
            return torch.from_numpy(np.load(path).astype(np.float32))
        found = forward(images_B3HW)
        np.save(path, found.float().numpy().astype(np.float16))
        return found

    extractor.forward = read_or_run


def run_arm(
    arm: tuple[str, str, list[str]],
    images: list[dict[str, Any]],
    root: Path,
    cache: Path | None,
    before: Tally | None = None,
) -> Tally:
    """Label photographs one by one, perhaps from the masks of another arm."""
    name, preset, overrides = arm
    config = load_label_config(name, preset, overrides=overrides)
    loaded = LOADERS[name](config, lambda: None)
    config = resolve(config, {**automatic(CPU), **loaded.facts})
    producer = loaded.build(config, CPU)
    if cache is not None:
        f = config.features
        cached(producer._features, cache, f"{loaded.weights_sha256} {f.level} {f.layer} {f.take} {f.precision}")
    tally = Tally()
    for image in images:
        path = root / image["file_name"]
        ref = ImageRef(image["id"], image["file_name"], str(path))
        decoded = decode_image(path.read_bytes(), ref, config.decode)
        masks = None if before is None else before.masks[image["id"]]
        prior = None if masks is None else Prior(masks.counts, masks.bbox, masks.score)
        pixels = torch.from_numpy(np.ascontiguousarray(decoded.pixels))[None]
        with torch.inference_mode():
            began = time.perf_counter()
            work = producer.forward(PixelBatch(pixels, [decoded], [prior]))
            work.wait()
            forwarded = time.perf_counter()
            record = producer.record(work, 0, ref, decoded)
            done = time.perf_counter()
            if cache is None:
                producer._features(pixels)
                tally.bare_s += time.perf_counter() - done
        tally.forward_s += forwarded - began
        tally.record_s += done - forwarded
        tally.masks[image["id"]] = record.masks
        if record.masks is not None:
            size = [record.height, record.width]
            tally.detections += [
                {
                    "image_id": image["id"],
                    "category_id": 1,
                    "segmentation": {"size": size, "counts": counts.decode()},
                    "score": float(score),
                }
                for counts, score in zip(record.masks.counts, record.masks.score, strict=True)
            ]
    tally.peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return tally


def judge(tally: Tally, gt: Path, ids: list[int], timed: bool) -> dict[str, float | None]:
    """Of the masks, and of what they cost an image."""
    scores = evaluate_coco(gt, tally.detections, ("segm",), image_ids=ids)["segm"]
    names = ("AP", "AP50", "AR10", "AR100", "ARs", "ARm", "ARl")
    found: dict[str, float | None] = {name: round(float(scores[name] or 0), 2) for name in names}
    most = evaluate_coco(gt, tally.detections, ("segm",), image_ids=ids, most=1000)["segm"]
    return {
        **found,
        "AR1000": round(float(most["AR1000"] or 0), 2),
        "masks": round(len(tally.detections) / len(ids), 1),
        "forward_s": round(tally.forward_s / len(ids), 3) if timed else None,
        "bare_s": round(tally.bare_s / len(ids), 3) if timed else None,
        "record_s": round(tally.record_s / len(ids), 3),
        "peak_gb": round(tally.peak_gb, 2),
    }


def picture(tallies: dict[str, Tally], images: list[dict[str, Any]], root: Path, target: Path) -> None:
    """A row for every photograph: itself, then its ten best masks by each arm, under their names."""
    head = np.full((24, 256 * (len(tallies) + 1), 3), 255, np.uint8)
    for place, name in enumerate(["photograph", *tallies]):
        cv2.putText(head, name, (256 * place + 6, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    rows = [head]
    for image in images:
        bgr = cv2.imread(str(root / image["file_name"]))
        rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        shown = [rgb]
        for tally in tallies.values():
            masks = tally.masks[image["id"]]
            most = 0 if masks is None else min(10, len(masks))
            if most:
                shown.append(draw_overlay(rgb, masks.counts[:most], masks.bbox[:most], masks.score[:most]))
            else:
                shown.append(rgb)
        rows.append(np.hstack([cv2.resize(one, (256, 192), interpolation=cv2.INTER_AREA) for one in shown]))
    cv2.imwrite(str(target), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--gt", type=Path, required=True)
    parser.add_argument("--half", choices=("tune", "report", "all"), default="report")
    parser.add_argument("--every", type=int, default=1, help="take every n-th photograph of the half")
    parser.add_argument("--arms", nargs="*", default=list(ARMS))
    parser.add_argument("--set", action="append", default=[], help="on top of every arm")
    parser.add_argument("--proxy", type=Path, help="weights of a ResNet-50 with strides on its 1x1 convolutions")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--show", type=Path, help="json list of file names that may be shown")
    options = parser.parse_args()
    arms, chosen = dict(ARMS), list(options.arms)
    if options.proxy:
        proxy = [f"features.weights={options.proxy.absolute()}", "features.stride_in_1x1=true"]
        more = {
            "ResNet-50 proxy, saliency": ("saliency", "saliency-prompt", proxy),
            "ResNet-50 proxy, merge": ("merge", "merge", [*proxy, *CONV]),
        }
        arms, chosen = arms | more, [*chosen, *more]
    if options.cache:
        options.cache.mkdir(parents=True, exist_ok=True)
    images = sorted(json.loads(options.gt.read_text())["images"], key=lambda image: image["file_name"])
    images = {"tune": images[::2], "report": images[1::2], "all": images}[options.half][:: options.every]
    report: dict[str, Any] = {"benchmark": "masks", "half": options.half, "photographs": len(images), "arms": {}}
    report["settings"] = options.set
    if options.json and options.json.exists():
        known = json.loads(options.json.read_text())
        if any(known[name] != report[name] for name in ("half", "photographs", "settings")):
            parser.error(f"{options.json} is of other photographs or settings: give another file")
        report["arms"] = known["arms"]
    report["environment"] = describe(CPU)
    tallies: dict[str, Tally] = {}
    due = {name for name in chosen if name not in report["arms"] or options.figure}
    due |= {FOUND} if FILLED in due else set()
    for name in sorted(due, key=list(arms).index):
        producer, preset, overrides = arms[name]
        before = tallies[FOUND] if name == FILLED else None
        arm = (producer, preset, [*overrides, *options.set])
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as alone:
            tallies[name] = alone.submit(run_arm, arm, images, options.images, options.cache, before).result()
        report["arms"][name] = judge(tallies[name], options.gt, [image["id"] for image in images], not options.cache)
        print(name, report["arms"][name], flush=True)
        if options.json:
            options.json.write_text(json.dumps(report, indent=2) + "\n")
    if options.figure:
        free = set(json.loads(options.show.read_text()))
        shown = [image for image in images if image["file_name"] in free][:8]
        best = sorted(tallies, key=lambda name: -report["arms"][name]["AP"])[:4]
        picture({name: tallies[name] for name in best}, shown, options.images, options.figure)
    publish(report, options.json)


if __name__ == "__main__":
    main()
