"""faster-coco-eval beside pycocotools, behind our own evaluation: equal numbers, and the processor's time of both.

    python benchmarks/coco_eval.py --gt instances.json [--images 5000] [--copies 3] [--json F]

The images of an annotation file are repeated until there are so many. Detections are its objects, each --copies times,
moved, a few of them lost, and others where nothing is, with scores that have ties.
"""

import argparse
import json
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import describe, publish
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from saliency_prompt.stages.evaluate import PYCOCOTOOLS, evaluate_coco, fastest_judge


def repeat(gt: Path, images: int) -> dict[str, Any]:
    """The annotations of as many images, each with an id of its own."""
    truth = json.loads(gt.read_text())
    made: dict[str, Any] = {"images": [], "annotations": [], "categories": truth["categories"]}
    of_image: dict[int, list[dict[str, Any]]] = {}
    for one in truth["annotations"]:
        of_image.setdefault(one["image_id"], []).append(one)
    for number in range(images):
        image = truth["images"][number % len(truth["images"])]
        made["images"].append({**image, "id": number + 1, "file_name": f"{number}.jpg"})
        for one in of_image.get(image["id"], []):
            made["annotations"].append({**one, "id": len(made["annotations"]) + 1, "image_id": number + 1})
    return made


def detect(truth: dict[str, Any], coco: COCO, copies: int, seed: int = 0) -> list[dict[str, Any]]:
    """Results that are right here and wrong there."""
    rng = np.random.default_rng(seed)
    categories = [one["id"] for one in truth["categories"]]
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    found = []
    for one in truth["annotations"]:
        whole = coco_mask.decode(coco.annToRLE(one))
        for _ in range(copies):
            if rng.random() < 0.2:
                continue
            mask = np.roll(whole, rng.integers(-12, 13, 2), (0, 1))
            if rng.random() < 0.3:
                mask = np.roll(mask, (sizes[one["image_id"]][0] // 2, 0), (0, 1))
            category = one["category_id"] if rng.random() < 0.9 else int(rng.choice(categories))
            rle = coco_mask.encode(np.asfortranarray(mask))
            segmentation = {"size": rle["size"], "counts": rle["counts"].decode()}
            score = round(float(rng.random()), 2)
            found.append(
                {"image_id": one["image_id"], "category_id": category, "segmentation": segmentation, "score": score}
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gt", type=Path, required=True)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--copies", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    judges = {"pycocotools": PYCOCOTOOLS, "faster-coco-eval": fastest_judge()}
    assert judges["faster-coco-eval"] is not PYCOCOTOOLS, "install faster-coco-eval"
    truth = repeat(options.gt, options.images)
    coco = COCO()
    coco.dataset = truth
    coco.createIndex()
    found = detect(truth, coco, options.copies)
    seconds: dict[str, dict[str, float]] = {name: {} for name in judges}
    numbers: dict[str, dict[str, Any]] = {name: {} for name in judges}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "truth.json"
        path.write_text(json.dumps(truth))
        for kind, agnostic in (("by_class", False), ("class_agnostic", True)):
            for name, judge in judges.items():  # in turn
                start = time.process_time()
                numbers[name][kind] = evaluate_coco(path, found, class_agnostic=agnostic, judge=judge)
                seconds[name][kind] = round(time.process_time() - start, 2)
    differences = [
        abs((a or 0) - (b or 0))
        for kind, report in numbers["pycocotools"].items()
        for iou_type in ("segm", "bbox")
        for a, b in zip(report[iou_type].values(), numbers["faster-coco-eval"][kind][iou_type].values(), strict=True)
    ]
    result = {
        "images": options.images,
        "objects": len(truth["annotations"]),
        "detections": len(found),
        "largest_difference": max(differences),
        "seconds": seconds,
        "faster_by": {
            kind: round(seconds["pycocotools"][kind] / seconds["faster-coco-eval"][kind], 2)
            for kind in seconds["pycocotools"]
        },
        "AP": {name: {kind: one["segm"]["AP"] for kind, one in of.items()} for name, of in numbers.items()},
        **describe(torch.device("cpu")),
        "pycocotools": version("pycocotools"),
        "faster-coco-eval": version("faster-coco-eval"),
        "note": "seconds of the process, reading of files included; other work ran beside",
    }
    publish(result, options.json)


if __name__ == "__main__":
    main()
