"""Images per second of the whole job, over those of the bare backbone forward in the same process.

    python benchmarks/throughput.py --images DIR --weights W --limit N --json F [--set features.precision=fp32] ...
    python benchmarks/throughput.py --images DIR --producer merge --preset merge --limit N --json F

Job and forward alternate, on the same images, in the same batches, at the same precision and memory settings; the
ratio is that of the medians. The job is all of it: planning, reading, decoding, the forward pass, proposals,
encoding, hashing, writing, committing, sealing. With `--plain K` a loop of the same steps, one image at a time in
fp32, written as one would first write it, runs on K of the images and gives `speedup_over_plain`. `cpu_ratio` is that
of processor time, of all threads: what other programs on the machine take from both does not count.
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
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from environment import describe
from pycocotools import mask as coco_mask

from saliency_prompt.models.backbones.resnet import ResNet
from saliency_prompt.pipeline.batching import Batcher
from saliency_prompt.pipeline.engine import MAX_WAITING_BATCHES, Admitted, load_image
from saliency_prompt.pipeline.plan import plan, resolve_config
from saliency_prompt.pipeline.run import ShardRunner, finish, run_in_process, unfinished
from saliency_prompt.pipeline.sources import open_source
from saliency_prompt.schemas.labels.saliency import Config
from saliency_prompt.schemas.registry import load_label_config
from saliency_prompt.stages.backbone import LoadedBackbone
from saliency_prompt.stages.decode import DecodedImage
from saliency_prompt.stages.device import resolve_device
from saliency_prompt.stages.features import FeatureExtractor, LoadedFeatures
from saliency_prompt.stages.pixels import stack_pixels
from saliency_prompt.stages.producers.registry import LOADERS

Result = TypeVar("Result")


class Seconds(NamedTuple):
    """By the clock, and of processors."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> "Seconds":
        """Since when does not matter."""
        return cls(time.perf_counter(), time.process_time())

    def __sub__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.wall - other.wall, self.cpu - other.cpu)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def form_batches(images: list[DecodedImage], size: int) -> list[torch.Tensor]:
    """The batches of the job, as it forms them."""
    batcher: Batcher[DecodedImage] = Batcher(size, MAX_WAITING_BATCHES * size)
    groups = [batch for image in images if (batch := batcher.add(image.pixels.shape, image))]
    return [stack_pixels([i.pixels for i in group], pin=False) for group in [*groups, *batcher.flush()]]


def time_forward(extractor: FeatureExtractor, batches: list[torch.Tensor]) -> Seconds:
    """Of the bare forward passes; the inputs are normalised and on the device before the clock starts."""
    device = extractor.device
    with torch.inference_mode():
        inputs = [extractor.normalise(extractor.upload(batch)) for batch in batches]
        synchronize(device)
        start = Seconds.now()
        for batch in inputs:
            extractor.forward(batch)
        synchronize(device)
        return Seconds.now() - start


def alone(threads: int, function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function in a thread of its own, whose OpenMP team ends with it."""

    def call() -> Result:
        torch.set_num_threads(threads)
        return function(*arguments)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def time_job(images: list[str], config: Any, loaded: LoadedFeatures, device: torch.device) -> tuple[Seconds, str]:
    """Seconds of the whole job on these files, and its root hash."""
    with tempfile.TemporaryDirectory() as folder:
        listing = Path(folder, "images.txt")
        listing.write_text("\n".join(images), encoding="utf-8")
        start = Seconds.now()
        planned = plan(f"{folder}/out", open_source(str(listing)), config, loaded, device)
        with ShardRunner(planned.dataset, planned.config, loaded, device) as runner:
            reports = list(run_in_process(runner, unfinished(planned.dataset), stop=threading.Event()))
        seal = finish(planned.dataset, len(reports)).seal
        assert seal is not None
        return Seconds.now() - start, seal.root_hash


def time_plain(paths: list[str], backbone: LoadedBackbone, config: Config, device: torch.device) -> float:
    """Seconds of the same steps written plainly: one image at a time, fp32, every seed through NMS."""
    module = backbone.module.to(device).float()
    mean, std = torch.tensor(module.mean, device=device), torch.tensor(module.std, device=device)
    start = time.perf_counter()
    for path in paths:
        image = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)
        height, width = image.shape[:2]
        scale = min(config.decode.short_side / min(height, width), config.decode.long_side / max(height, width))
        image = cv2.resize(image, (round(width * scale), round(height * scale)))
        with torch.no_grad():
            pixels = ((torch.from_numpy(image).to(device).float() - mean) / std).permute(2, 0, 1)[None]
            features = module(pixels, "c5")["c5"]
            keys = F.normalize(features[0].flatten(1), dim=0)
            seeds = [F.interpolate(features, scale_factor=s, mode="bilinear")[0].flatten(1) for s in (1.0, 0.5, 0.25)]
            maps = F.normalize(torch.cat(seeds, 1), dim=0).T @ keys
            low = maps.amin(1, keepdim=True)
            maps = (maps - low) / (maps.amax(1, keepdim=True) - low)
            binary = (maps >= 0.5).float()
            maskness = (maps * binary).sum(1) / binary.sum(1)
            order = maskness.argsort(descending=True)
            maps, binary, maskness = maps[order], binary[order], maskness[order]
            inter = binary @ binary.T
            area = binary.sum(1)
            iou = (inter / (area[:, None] + area[None] - inter)).triu(1)
            cover = iou.amax(0)[:, None].expand_as(iou)
            score = maskness * (torch.exp(-2 * iou**2) / torch.exp(-2 * cover**2)).amin(0)
            best = score.argsort(descending=True)[:20]
            soft = maps[best][score[best] >= 0.7].view(1, -1, *features.shape[2:])
            full = F.interpolate(soft, (height, width), mode="bilinear")[0] >= 0.5 if soft.shape[1] else soft[0]
        for mask in full.cpu().numpy():
            coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return time.perf_counter() - start


def median(times: list[Seconds]) -> float:
    return statistics.median(one.wall for one in times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", required=True, help="folder, glob or list, as `generate` takes it")
    parser.add_argument("--producer", default="saliency")
    parser.add_argument("--preset", help="default: the producer's own")
    parser.add_argument("--weights", help="default: random, or those of the preset that is named")
    parser.add_argument("--limit", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plain", type=int, default=0, help="images for the plain loop")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--json")
    options = parser.parse_args()

    device = resolve_device(options.device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of this thread: a second OpenMP team would slow the first, see `without_helpers`
    weights = options.weights or (None if options.preset else "random")
    overrides = [*options.overrides, *([] if weights is None else [f"features.weights={weights}"])]
    config = load_label_config(options.producer, options.preset, None, overrides)
    loaded = LOADERS[options.producer](config, lambda: None)
    assert isinstance(loaded, LoadedFeatures), f"{options.producer} has no backbone to compare with"
    backbone = loaded.backbone
    resolved = resolve_config(config, loaded.facts, device)
    refs = [ref for ref, _ in zip(open_source(options.images).refs(), range(options.limit), strict=False)]
    read = [load_image(ref, resolved.decode, loaded.admission(resolved)) for ref in refs]
    images = [one.image for one in read if isinstance(one, Admitted)]
    paths = [ref.uri for ref, one in zip(refs, read, strict=True) if isinstance(one, Admitted)]
    extractor = FeatureExtractor(backbone, resolved.features, device)
    batches = form_batches(images, resolved.features.batch_size)

    alone(threads, time_forward, extractor, batches[:2])  # warm-up
    torch.set_num_threads(threads)  # what the job's own threads take
    time_job(paths[: 2 * resolved.features.batch_size], config, loaded, device)
    forward, job, hashes = [], [], set()
    for _ in range(options.rounds):
        forward.append(alone(threads, time_forward, extractor, batches))
        seconds, root_hash = time_job(paths, config, loaded, device)
        job.append(seconds)
        hashes.add(root_hash)
    count = len(images)
    result: dict[str, Any] = {
        "benchmark": "throughput",
        "producer": options.producer,
        "preset": options.preset,
        "images": count,
        "batches": len(batches),
        "arch": backbone.arch,
        "weights": Path(backbone.weights).name,
        "precision": resolved.features.precision,
        "batch_size": resolved.features.batch_size,
        "short_side": resolved.decode.short_side,
        "ratio": median(forward) / median(job),
        "cpu_ratio": statistics.median(one.cpu for one in forward) / statistics.median(one.cpu for one in job),
        "job_images_per_second": count / median(job),
        "forward_images_per_second": count / median(forward),
        "job_seconds": [one.wall for one in job],
        "forward_seconds": [one.wall for one in forward],
        "job_cpu_seconds": [one.cpu for one in job],
        "forward_cpu_seconds": [one.cpu for one in forward],
        "same_bytes_every_round": len(hashes) == 1,
    }
    if options.plain:
        assert isinstance(backbone.module, ResNet), "the plain loop is written for a ResNet"
        chosen = paths[: options.plain]
        alone(threads, time_plain, chosen[:1], backbone, resolved, device)
        seconds = alone(threads, time_plain, chosen, backbone, resolved, device)
        result["plain_images_per_second"] = len(chosen) / seconds
        result["speedup_over_plain"] = result["job_images_per_second"] / result["plain_images_per_second"]
    result["environment"] = describe(device)
    text = json.dumps(result, indent=2)
    print(text)
    print(f"ratio {result['ratio']:.3f}, of processor time {result['cpu_ratio']:.3f}")
    if options.json:
        Path(options.json).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
