"""Step time of Saliency Prompt pre-training over that without prompts, alternating in one process on one batch.

    python benchmarks/prompts.py --dataset DATASET [--rounds 12] [--batch 2] [--json F]

A step is everything but reading: the frozen backbone, pyramid, heads, matching, losses, gradients, AdamW. Prompts come
with the kernel loss and its projection.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from environment import describe, publish

from saliency_prompt import PseudoLabelDataset
from saliency_prompt.models.backbones.registry import build_backbone
from saliency_prompt.pipeline.instances.runs import build_host
from saliency_prompt.schemas.instances import PRETRAIN_PRESETS, load_instance_config
from saliency_prompt.stages.instances.module import InstanceTraining
from saliency_prompt.stages.instances.samples import Batch, collate


def make_step(assigner: str, batch: Batch, seed_channels: int) -> Callable[[], None]:
    config = load_instance_config(PRETRAIN_PRESETS, "sp-coco", overrides=[f"prompt.assigner={assigner}"])
    host = build_host(config, build_backbone("resnet50"), 1, 0)
    prompts = assigner != "none"
    module = InstanceTraining(host, config, 1000, prompts=prompts, seed_channels=seed_channels if prompts else 0)
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
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    data = PseudoLabelDataset(options.dataset, size=(480, 800), vectors=("seed",), min_masks=2)
    batch = collate([data[i] for i in range(options.batch)])
    channels = batch.seeds[0].shape[1]
    steps = {name: make_step(name, batch, channels) for name in ("cosine", "none")}
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
