"""What labelling with trained detectors costs over their bare forward pass, in one process and in turns.

    python benchmarks/detectors.py --run RUN [RUN ...] --images DIR [--limit N] [--json F] [--set detect.min_score=0.1]

Jobs and forward passes of all runs alternate, on the same images, in the same batches, in the same arithmetic and with
the same memory settings; ratios are those of medians. The network is backbone, pyramid and head (of SOLO's family); the
forward is `find` on normalised images, with masks and NMS. The job is all of it: planning, reading, decoding, `find`,
pasting and encoding masks, hashing, writing, committing, sealing. `cpu_seconds` are the process's, of all its threads:
on a machine that others use too, the wall says nothing, and with OMP_NUM_THREADS=1 they do. Peak memory is that of the
process, all runs being loaded.
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
PARTS = ("network", "forward", "job")
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
    """A call, and the most memory that the process held during it (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    result = function(*arguments)
    lines = Path("/proc/self/status").read_text().splitlines()
    return result, float(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


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
        self.wall: dict[str, list[float]] = {name: [] for name in PARTS}
        self.cpu: dict[str, list[float]] = {name: [] for name in PARTS}
        self.hashes: set[str] = set()
        self.masks = 0
        self.peaks: dict[str, float] = dict.fromkeys(PARTS, 0.0)

    def warm_up(self, threads: int) -> None:
        """Once everything, on few images."""
        alone(threads, time_forward, self.loaded, self.config, self.batches[:1], self.device)
        torch.set_num_threads(threads)  # what the job's own threads take
        time_job(self.paths[: self.config.detect.batch_size], self.config, self.loaded, self.device)

    def take_turn(self, threads: int) -> None:
        """Measure once."""
        arguments = (self.loaded, self.config, self.batches, self.device)
        if (network := self._measured("network", alone, threads, time_network, *arguments)) is not None:
            self.wall["network"].append(network)
        self.wall["forward"].append(self._measured("forward", alone, threads, time_forward, *arguments)[0])
        found = self._measured("job", time_job, self.paths, self.config, self.loaded, self.device)
        self.wall["job"].append(found[0])
        self.hashes.add(found[1])
        self.masks = found[2]

    def _measured(self, part: str, function: Callable[..., Result], *arguments: Any) -> Result:
        start = time.process_time()
        result, peak = peak_megabytes(function, *arguments)
        self.cpu[part].append(time.process_time() - start)
        self.peaks[part] = max(self.peaks[part], peak)
        return result

    def report(self) -> dict[str, Any]:
        """What was measured."""
        module, count = self.loaded.trained.module, len(self.paths)
        known = [name for name in PARTS if self.wall[name]]
        ratios = {
            f"{kind}_{one}_over_{other}": round(statistics.median(times[one]) / statistics.median(times[other]), 3)
            for kind, times in (("cpu", self.cpu), ("wall", self.wall))
            for other, one in (("network", "forward"), ("network", "job"), ("forward", "job"))
            if other in known
        }
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
            **ratios,
            "job_images_per_second": count / statistics.median(self.wall["job"]),
            "seconds": {name: self.wall[name] for name in known},
            "cpu_seconds": {name: self.cpu[name] for name in known},
            "peak_megabytes": {name: round(self.peaks[name]) for name in known},
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
