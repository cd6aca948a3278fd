"""Step time of DenseCL over that of MoCo-v2, alternating in one process on the same batches.

    python benchmarks/densecl.py [--preset mini] [--rounds N] [--json F] [--set optim.batch_size=32] ...

A step is everything but reading: two views on the device, both encoders, losses, gradients, SGD, the key encoder's
update, the queues. The ratio is the median over rounds of DenseCL's time over MoCo-v2's in the same round.
"""

from saliency_prompt.pipeline.process import tune_allocator

tune_allocator()  # as the command line does: before numpy and torch start threads

# ruff: noqa: E402
import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import describe

from saliency_prompt.schemas.training.densecl import DenseCLConfig, load_densecl_config
from saliency_prompt.stages.device import DTYPES, resolve_device, resolve_precision
from saliency_prompt.stages.recipes.densecl.augment import render_views
from saliency_prompt.stages.recipes.densecl.recipe import bn_splits, build_model
from saliency_prompt.stages.recipes.densecl.views import UNIFORMS, draw_views, step_generator


def make_step(config: DenseCLConfig, device: torch.device) -> Callable[[int], None]:
    """One whole training step as a function of its number."""
    batch = config.optim.batch_size // config.optim.accumulate
    model = build_model(config, splits=bn_splits(config, 1)).to(device).to(memory_format=torch.channels_last)
    optim = torch.optim.SGD(
        model.query.parameters(),
        lr=config.learning_rate,
        momentum=config.optim.momentum,
        weight_decay=config.optim.weight_decay,
    )
    dtype = DTYPES[resolve_precision(config.train.precision, device)]
    side = config.photos.side
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), dtype=np.uint8))
    pixels = pixels.to(device)
    backbone = model.query.backbone

    def step(number: int) -> None:
        uniform = step_generator(0, number, 1).random((batch, 2, UNIFORMS))
        views = [
            render_views(
                pixels,
                draw_views(uniform[:, i], np.ones(batch), config.augment),
                config.augment.size,
                backbone.mean,
                backbone.std,
            )
            for i in (0, 1)
        ]
        model.update_key(config.model.key_momentum)
        order = torch.from_numpy(step_generator(0, number, 2).permutation(batch)).to(device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = model(*views, weight=config.model.dense_weight, order_G=order).loss
        loss.backward()
        optim.step()
        optim.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--json")
    options = parser.parse_args()

    device = resolve_device(options.device)
    config = load_densecl_config(options.preset, overrides=options.overrides)
    moco = config.model_copy(update={"model": config.model.model_copy(update={"dense_weight": 0.0})})
    steps = {"densecl": make_step(config, device), "moco_v2": make_step(moco, device)}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(options.rounds + 3):
        order = list(steps) if number % 2 else list(reversed(steps))  # neither always profits from the other's cache
        for name in order:
            start = time.perf_counter()
            steps[name](number)
            if number >= 3:  # warm-up
                seconds[name].append(time.perf_counter() - start)
    ratios = [d / m for d, m in zip(seconds["densecl"], seconds["moco_v2"], strict=True)]
    median = {name: statistics.median(values) for name, values in seconds.items()}
    result: dict[str, Any] = {
        "benchmark": "densecl",
        "ratio": statistics.median(ratios),
        "ratio_quartiles": statistics.quantiles(ratios, n=4)[::2],
        "densecl_ms": 1e3 * median["densecl"],
        "moco_v2_ms": 1e3 * median["moco_v2"],
        "densecl_images_per_second": config.optim.batch_size / config.optim.accumulate / median["densecl"],
        "rounds": options.rounds,
        "arch": config.model.arch,
        "batch_size": config.optim.batch_size // config.optim.accumulate,
        "size": config.augment.size,
        "queue": config.model.queue,
        "precision": resolve_precision(config.train.precision, device),
        "peak_memory_gb": (
            torch.cuda.max_memory_allocated(device) / 1e9
            if device.type == "cuda"
            else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        ),
        "environment": describe(device),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.json:
        Path(options.json).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
