"""Images per second of labelling with a trained detector, over those of its bare forward pass in the same process.

    python benchmarks/detectors.py --run RUN --images DIR [--limit N] [--json F] [--set detect.min_score=0.1] ...

Job and forward alternate, on the same images, in the same batches, in the same arithmetic and with the same memory
settings; the ratio is that of the medians. The forward is `find` on normalised images. The job is all of it: planning,
reading, decoding, `find`, pasting and encoding masks, hashing, writing, committing, sealing.
"""

from saliency_prompt.pipeline.process import tune_allocator

tune_allocator()  # as the command line does: before numpy and torch start threads

# ruff: noqa: E402
import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from environment import describe

from saliency_prompt.models.detector import Limits, Size
from saliency_prompt.pipeline.batching import Batcher
from saliency_prompt.pipeline.engine import MAX_WAITING_BATCHES, Admitted, load_image
from saliency_prompt.pipeline.labeller import Labeller
from saliency_prompt.pipeline.plan import plan, resolve_config
from saliency_prompt.pipeline.run import ShardRunner, finish, run_in_process, unfinished
from saliency_prompt.pipeline.sources import open_source
from saliency_prompt.schemas.labels.detector import DetectorConfig
from saliency_prompt.schemas.registry import load_label_config
from saliency_prompt.stages.device import DTYPES, resolve_device
from saliency_prompt.stages.pixels import PixelInput, stack_pixels
from saliency_prompt.stages.producers.detector import LoadedDetectorProducer

Result = TypeVar("Result")
Batch = tuple[torch.Tensor, list[Size]]


def form_batches(admitted: list[Admitted], size: int) -> list[Batch]:
    """The batches of the job, as it forms them."""
    batcher: Batcher[Admitted] = Batcher(size, MAX_WAITING_BATCHES * size)
    groups = [group for one in admitted if (group := batcher.add(one.shape, one))]
    return [
        (
            stack_pixels([one.image.pixels for one in group], pin=False, shape=group[0].shape),
            [(one.image.pixels.shape[0], one.image.pixels.shape[1]) for one in group],
        )
        for group in [*groups, *batcher.flush()]
    ]


def time_forward(
    loaded: LoadedDetectorProducer, config: DetectorConfig, batches: list[Batch], device: torch.device
) -> tuple[float, int]:
    """Seconds of `find` on all batches, and how many instances it gave; inputs are ready before the clock starts."""
    module = loaded.trained.module.to(device)
    pixels = PixelInput(module.backbone.mean, module.backbone.std, device, torch.float32)
    dtype = DTYPES[config.detect.precision]
    limits = Limits(config.detect.max_masks, config.detect.min_score)
    count = 0
    with torch.inference_mode():
        inputs = [(pixels.normalise(images.to(device)), sizes) for images, sizes in batches]
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        for images, sizes in inputs:
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                count += sum(map(len, module.find(images, sizes, limits)))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start, count


def alone(threads: int, function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function in a thread of its own, whose OpenMP team ends with it."""

    def call() -> Result:
        torch.set_num_threads(threads)
        return function(*arguments)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def time_job(
    paths: list[str], config: DetectorConfig, loaded: LoadedDetectorProducer, device: torch.device
) -> tuple[float, str, int]:
    """Seconds of the whole job on these files, its root hash, and its number of masks."""
    with tempfile.TemporaryDirectory() as folder:
        listing = Path(folder, "images.txt")
        listing.write_text("\n".join(paths), encoding="utf-8")
        start = time.perf_counter()
        planned = plan(f"{folder}/out", open_source(str(listing)), config, loaded, device)
        with ShardRunner(planned.dataset, planned.config, loaded, device) as runner:
            reports = list(run_in_process(runner, unfinished(planned.dataset), stop=threading.Event()))
        seal = finish(planned.dataset, len(reports)).seal
        assert seal is not None
        return time.perf_counter() - start, seal.root_hash, seal.counts.masks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="folder of a training run")
    parser.add_argument("--images", required=True, help="folder, glob or list, as `generate` takes it")
    parser.add_argument("--limit", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--json")
    options = parser.parse_args()

    device = resolve_device(options.device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of this thread: a second OpenMP team would slow the first
    asked = load_label_config("detector", overrides=options.overrides)
    assert isinstance(asked, DetectorConfig)
    loaded = Labeller(asked, options.run).load()
    assert isinstance(loaded, LoadedDetectorProducer)
    config = resolve_config(asked, loaded.facts, device)
    refs = [ref for ref, _ in zip(open_source(options.images).refs(), range(options.limit), strict=False)]
    read = [(ref, load_image(ref, config.decode, loaded.admission(config))) for ref in refs]
    admitted = [one for _, one in read if isinstance(one, Admitted)]
    paths = [ref.uri for ref, one in read if isinstance(one, Admitted)]
    batches = form_batches(admitted, config.detect.batch_size)

    alone(threads, time_forward, loaded, config, batches[:2], device)  # warm-up
    torch.set_num_threads(threads)  # what the job's own threads take
    time_job(paths[: 2 * config.detect.batch_size], config, loaded, device)
    forward, job, hashes, counts = [], [], set(), set()
    for _ in range(options.rounds):
        seconds, _ = alone(threads, time_forward, loaded, config, batches, device)
        forward.append(seconds)
        seconds, root_hash, masks = time_job(paths, config, loaded, device)
        job.append(seconds)
        hashes.add(root_hash)
        counts.add(masks)
    module = loaded.trained.module
    result: dict[str, Any] = {
        "benchmark": "detectors",
        "model": type(module).__name__,
        "backbone": type(module.backbone).__name__,
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "images": len(admitted),
        "batches": len(batches),
        "masks_per_image": max(counts) / len(admitted),
        "precision": config.detect.precision,
        "batch_size": config.detect.batch_size,
        "short_side": config.decode.short_side,
        "ratio": statistics.median(forward) / statistics.median(job),
        "job_images_per_second": len(admitted) / statistics.median(job),
        "forward_images_per_second": len(admitted) / statistics.median(forward),
        "job_seconds": job,
        "forward_seconds": forward,
        "same_bytes_every_round": len(hashes) == 1,
        "environment": describe(device),
    }
    text = json.dumps(result, indent=2)
    print(text)
    print(f"ratio {result['ratio']:.3f}")
    if options.json:
        Path(options.json).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
