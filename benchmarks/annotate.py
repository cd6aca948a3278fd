"""The annotation engine's images per second over the bare sum of its models' forwards, paired in one process.

    python benchmarks/annotate.py [--branches tags boxes] [--rounds 3] [--images 8] [--width 192] [--layers 6]
        [--side 512] [--json F]

Models are the real architectures with random weights. In a first pass every call of a model is noted with its inputs;
then the engine (reading, decoding, processors, masks, encoding, a shard) and those calls alone take turns. On a CPU
nothing overlaps, and 1 cannot be passed; on a GPU decoding and encoding run beside. The ratio is taken of the wall
clock and, which other work on the machine does not touch, of CPU time.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from environment import describe, publish
from scenes import make_scene

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import cv2

from saliency_prompt.pipeline.engine import Engine
from saliency_prompt.pipeline.plan import resolve_config
from saliency_prompt.pipeline.sources import open_source
from saliency_prompt.schemas.labels.annotate import AnnotateConfig
from saliency_prompt.schemas.records import columns_of, masks_schema
from saliency_prompt.schemas.registry import PRODUCERS, load_label_config
from saliency_prompt.stages.producers.annotate.load import load_annotator
from saliency_prompt.store.shard import build_shard
from tiny_models import Scale, tiny

CALLS = ("forward", "generate", "get_image_features", "get_text_features")


def photographs(folder: Path, count: int, side: int) -> tuple[Path, Path]:
    """Scenes as JPEG files, and two boxes for each."""
    import json

    images, annotations = [], []
    (folder / "images").mkdir()
    for number in range(count):
        scene = cv2.resize(make_scene(0, number).image, (side * 4 // 3, side))
        name = f"{number:04d}.jpg"
        cv2.imwrite(str(folder / "images" / name), scene)
        images.append({"id": number, "file_name": name})
        annotations += [{"image_id": number, "bbox": [20 + 90 * i, 30, 80, 90 + 20 * i]} for i in range(2)]
    (folder / "gt.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    (folder / "tags.txt").write_text("cat\ndog\n")
    return folder / "images", folder / "gt.json"


def note_calls(models: list[Any]) -> list[Callable[[], Any]]:
    """Have every outermost call of a model added to a list, from where it can be made again."""
    calls: list[Callable[[], Any]] = []
    inside = [False]

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if inside[0]:
                return function(*args, **kwargs)
            calls.append(lambda: function(*args, **kwargs))
            inside[0] = True
            try:
                return function(*args, **kwargs)
            finally:
                inside[0] = False

        return call

    for model in models:
        for name in CALLS:
            if hasattr(model, name):
                setattr(model, name, watched(getattr(model, name)))
    return calls


def measure(branch: str, options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    scale = Scale(options.width, options.layers, options.side)
    names = {"tagger": "clip", "matcher": "clip", "mask_segmenter": "sam", "captioner": "blip"}
    names["box_detector"] = "grounding-dino"
    with tempfile.TemporaryDirectory() as name:
        images, gt = photographs(Path(name), options.images, options.side)
        settings = [f"roles.{role}={tiny(kind, scale)!r}" for role, kind in names.items()]
        settings += [f"annotate.branch={branch}", f"boxes.gt={str(gt)!r}", "annotate.largest=1.0", "tags.box=0.0"]
        settings += [f"tags.vocabulary={str(Path(name) / 'tags.txt')!r}", "tags.most=2", "tags.min_score=0.0"]
        settings += [f"decode.short_side={options.side}", f"decode.long_side={options.side * 2}"]
        settings += ["annotate.batch_size=4", "annotate.caption_tokens=8"]
        config = load_label_config("annotate", overrides=settings)
        assert isinstance(config, AnnotateConfig)
        loaded = load_annotator(config, None)
        resolved = resolve_config(config, loaded.facts, device)
        producer = loaded.build(resolved, device)
        models = [getattr(one, "_matcher", one)._model for one in loaded.chain.roles().values()]
        refs = list(open_source(str(images)).refs())
        calls, schema = note_calls(models), masks_schema(columns_of(PRODUCERS["annotate"].columns))

        def finish() -> None:
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        def whole() -> tuple[float, float]:
            start, busy = time.perf_counter(), time.process_time()
            build_shard(engine.submit(refs).result(), resolved.compression_level, schema)
            finish()
            return time.perf_counter() - start, time.process_time() - busy

        def bare() -> tuple[float, float]:
            start, busy = time.perf_counter(), time.process_time()
            with torch.inference_mode():
                for call in list(noted):
                    call()
            finish()
            return time.perf_counter() - start, time.process_time() - busy

        with Engine(producer, read_threads=1, encode_threads=1) as engine:
            whole()  # warms up, and embeds the vocabulary, which is done once
            calls.clear()
            whole()
            noted = list(calls)
            bare()
            times = [(whole(), bare()) for _ in range(options.rounds)]
            steps = dict(engine.meter.seconds)
    ratios = [[one / all_ for all_, one in zip(*pair, strict=True)] for pair in times]
    return {
        "ratio": statistics.median(wall for wall, _ in ratios),
        "ratio_of_cpu_time": statistics.median(busy for _, busy in ratios),
        "ratios": [[round(one, 3) for one in pair] for pair in ratios],
        "model_seconds_per_image": statistics.median(one[1] for _, one in times) / options.images,
        "model_calls": len(noted),
        "thread_seconds": steps,
        "precision": resolved.annotate.precision,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--branches", nargs="+", default=["tags", "boxes"])
    for name, value in (("rounds", 3), ("images", 8), ("width", 192), ("layers", 6), ("side", 512)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.set_num_threads(1)
    report = {branch: measure(branch, options, device) for branch in options.branches}
    about = {name: getattr(options, name) for name in ("rounds", "images", "width", "layers", "side")}
    publish({"branches": report, **about, "environment": describe(device)}, options.json)


if __name__ == "__main__":
    main()
