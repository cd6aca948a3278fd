"""What labelling with trained detectors costs over their bare forward pass, in one process and in turns.

    python benchmarks/detectors.py --run RUN [RUN ...] --images DIR [--limit N] [--json F] [--set detect.min_score=0.1]

Jobs and forward passes of all runs alternate, on the same images, in the same batches, in the same arithmetic and with
the same memory settings; ratios are those of medians. The network is backbone, pyramid and head (of SOLO's family); the
forward is `find` on normalised images, with masks and NMS. The job is all of it: planning, reading, decoding, `find`,
pasting and encoding masks, hashing, writing, committing, sealing. Peak memory is the process's, above what it held when
the part began.
"""

from saliency_prompt.pipeline.process import tune_allocator

tune_allocator()  # as the command line does: before numpy and torch start threads

# ruff: noqa: E402
import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from environment import describe, publish

from saliency_prompt.models.detector import Limits, Size
from saliency_prompt.models.solo.model import Solo
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


def time_network(
    loaded: LoadedDetectorProducer, config: DetectorConfig, batches: list[Batch], device: torch.device
) -> float | None:
    """Seconds of the network alone on all batches; None for models that are no more than `find`."""
    module = loaded.trained.module.to(device)
    if not isinstance(module, Solo):
        return None
    pixels = PixelInput(module.backbone.mean, module.backbone.std, device, torch.float32)
    dtype = DTYPES[config.detect.precision]
    with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        inputs = [pixels.normalise(images.to(device)) for images, _ in batches]
        start = time.perf_counter()
        for images in inputs:
            module.head(module.features(images))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start


def peak_megabytes(function: Callable[..., Result], *arguments: Any) -> tuple[Result, float]:
    """A call, and how much more memory the process held during it than before (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    result = function(*arguments)
    return result, (_status("VmHWM") - before) / 1024


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(field)).split()[1])


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


class Contestant:
    """A run on its images, and what was measured of it."""

    def __init__(self, run: str, options: argparse.Namespace, device: torch.device) -> None:
        asked = load_label_config("detector", overrides=options.overrides)
        assert isinstance(asked, DetectorConfig)
        loaded = Labeller(asked, run).load()
        assert isinstance(loaded, LoadedDetectorProducer)
        self.loaded, self.device = loaded, device
        self.config = resolve_config(asked, loaded.facts, device)
        refs = [ref for ref, _ in zip(open_source(options.images).refs(), range(options.limit), strict=False)]
        read = [(ref, load_image(ref, self.config.decode, loaded.admission(self.config))) for ref in refs]
        admitted = [one for _, one in read if isinstance(one, Admitted)]
        self.paths = [ref.uri for ref, one in read if isinstance(one, Admitted)]
        self.batches = form_batches(admitted, self.config.detect.batch_size)
        self.network: list[float] = []
        self.forward: list[float] = []
        self.job: list[float] = []
        self.hashes: set[str] = set()
        self.masks = 0
        self.peaks: dict[str, float] = {"forward": 0.0, "job": 0.0}

    def warm_up(self, threads: int) -> None:
        """Once everything, on few images."""
        alone(threads, time_forward, self.loaded, self.config, self.batches[:1], self.device)
        torch.set_num_threads(threads)  # what the job's own threads take
        time_job(self.paths[: self.config.detect.batch_size], self.config, self.loaded, self.device)

    def take_turn(self, threads: int) -> None:
        """Measure once."""
        arguments = (self.loaded, self.config, self.batches, self.device)
        if (seconds := alone(threads, time_network, *arguments)) is not None:
            self.network.append(seconds)
        (seconds, _), peak = peak_megabytes(alone, threads, time_forward, *arguments)
        self.forward.append(seconds)
        self.peaks["forward"] = max(self.peaks["forward"], peak)
        found, peak = peak_megabytes(time_job, self.paths, self.config, self.loaded, self.device)
        seconds, root_hash, self.masks = found
        self.job.append(seconds)
        self.hashes.add(root_hash)
        self.peaks["job"] = max(self.peaks["job"], peak)

    def report(self) -> dict[str, Any]:
        """What was measured."""
        module, count = self.loaded.trained.module, len(self.paths)
        job, forward = statistics.median(self.job), statistics.median(self.forward)
        network = statistics.median(self.network) if self.network else None
        return {
            "model": type(module).__name__,
            "backbone": type(module.backbone).__name__,
            "parameters": sum(parameter.numel() for parameter in module.parameters()),
            "images": count,
            "batches": len(self.batches),
            "masks_per_image": self.masks / count,
            "precision": self.config.detect.precision,
            "batch_size": self.config.detect.batch_size,
            "short_side": self.config.decode.short_side,
            "job_over_forward": job / forward,
            "forward_over_network": None if network is None else forward / network,
            "job_over_network": None if network is None else job / network,
            "job_images_per_second": count / job,
            "job_seconds": self.job,
            "forward_seconds": self.forward,
            "network_seconds": self.network,
            "peak_megabytes": {name: round(value) for name, value in self.peaks.items()},
            "same_bytes_every_round": len(self.hashes) == 1,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, nargs="+", help="folders of training runs")
    parser.add_argument("--images", required=True, help="folder, glob or list, as `generate` takes it")
    parser.add_argument("--limit", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    device = resolve_device(options.device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of this thread: a second OpenMP team would slow the first
    contestants = [Contestant(run, options, device) for run in options.run]
    for one in contestants:
        one.warm_up(threads)
    for _ in range(options.rounds):
        for one in contestants:
            one.take_turn(threads)
    result = {
        "benchmark": "detectors",
        "runs": [one.report() for one in contestants],
        "environment": describe(device),
    }
    publish(result, options.json)


if __name__ == "__main__":
    main()
