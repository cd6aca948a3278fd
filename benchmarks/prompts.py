"""Step time of Saliency Prompt pre-training over that without prompts, alternating in one process on one batch.

    python benchmarks/prompts.py --dataset DATASET [--host knet] [--rounds 12] [--batch 2] [--json F]

A step is everything but reading: the frozen backbone, pyramid, heads, matching, losses, gradients, AdamW. Prompts come
with the kernel loss and its projection.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from environment import describe, publish

from saliency_prompt import PseudoLabelDataset
from saliency_prompt.models.backbones.registry import build_backbone
from saliency_prompt.pipeline.training.model import build_model
from saliency_prompt.schemas.training.registry import load_pretraining_config
from saliency_prompt.stages.instances.samples import Batch, collate
from saliency_prompt.stages.recipes.saliency_prompt import SaliencyPrompt


def make_step(name: str, assigner: str, data: PseudoLabelDataset, batch: Batch) -> Callable[[], None]:
    settings = [f"prompt.assigner={assigner}", f"prompt.kernel_weight={float(assigner != 'none')}"]
    config = load_pretraining_config(name, "sp-coco", overrides=settings)
    host: Any = build_model(config, build_backbone("resnet50"), 1)
    channels = batch.seeds[0].shape[1] if assigner != "none" else 0
    module = SaliencyPrompt(host, config, data, seed_channels=channels)
    module.train()
    optimizer = module.configure_optimizers()

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = torch.stack(list(module.losses(batch).values())).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--host", default="knet", help="knet, queryinst or mask2former")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    data = PseudoLabelDataset(options.dataset, size=(480, 800), vectors=("seed",), min_masks=2)
    batch = collate([data[i] for i in range(options.batch)])
    steps = {name: make_step(options.host, name, data, batch) for name in ("cosine", "none")}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(options.rounds + 2):
        for name in list(steps) if turn % 2 else list(reversed(steps)):
            start = time.perf_counter()
            steps[name]()
            if turn >= 2:
                seconds[name].append(time.perf_counter() - start)
    ratios = [a / b for a, b in zip(seconds["cosine"], seconds["none"], strict=True)]
    result = {
        "benchmark": "prompts",
        "host": options.host,
        "ratio": round(statistics.median(ratios), 4),
        "ratio_quartiles": [round(r, 4) for r in statistics.quantiles(ratios, n=4)[::2]],
        "milliseconds": {name: round(1e3 * statistics.median(found), 1) for name, found in seconds.items()},
        "batch": options.batch,
        "size": list(batch.images.shape[2:]),
        "rounds": options.rounds,
        "environment": describe(torch.device("cpu")),
    }
    publish(result, options.json)


if __name__ == "__main__":
    main()
