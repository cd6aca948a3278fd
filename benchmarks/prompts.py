"""Time of a step of Saliency Prompt pre-training over that without prompts, alternating in one process on one batch.

    python benchmarks/prompts.py --dataset DATASET [--hosts knet queryinst mask2former] [--rounds 12] [--batch 2]
        [--size 480 800] [--json F]

A step is everything but reading: the frozen backbone, pyramid, heads, matching, losses, gradients, AdamW. Prompts come
with the kernel loss and its projection. Time is that of the CPU in this process, so that other work beside it matters
little. What is in F already is kept.
"""

import argparse
import json
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
from saliency_prompt.stages.device import resolve_precision
from saliency_prompt.stages.instances.samples import Batch, collate
from saliency_prompt.stages.recipes.saliency_prompt import SaliencyPrompt

FAST_BF16 = resolve_precision("auto", torch.device("cpu")) == "bf16"


def make_step(name: str, assigner: str, data: PseudoLabelDataset, batch: Batch) -> Callable[[], None]:
    settings = [f"prompt.assigner={assigner}", f"prompt.kernel_weight={float(assigner != 'none')}"]
    config = load_pretraining_config(name, "sp-coco", overrides=settings)
    host: Any = build_model(config, build_backbone("resnet50"), 1)
    channels = batch.seeds[0].shape[1] if assigner != "none" else 0
    module = SaliencyPrompt(host, config, data, seed_channels=channels)
    module.train()
    optimizer = module.configure_optimizers()

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=FAST_BF16):
            loss = torch.stack(list(module.losses(batch).values())).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def compare(name: str, data: PseudoLabelDataset, batch: Batch, rounds: int) -> dict[str, Any]:
    """One host."""
    steps = {prompts: make_step(name, prompts, data, batch) for prompts in ("cosine", "none")}
    seconds: dict[str, list[float]] = {prompts: [] for prompts in steps}
    for turn in range(rounds + 1):
        for prompts in list(steps) if turn % 2 else list(reversed(steps)):
            torch.manual_seed(turn)
            start = time.process_time()
            steps[prompts]()
            if turn:
                seconds[prompts].append(time.process_time() - start)
    ratios = [a / b for a, b in zip(seconds["cosine"], seconds["none"], strict=True)]
    return {
        "ratio": round(statistics.median(ratios), 4),
        "ratio_quartiles": [round(r, 4) for r in statistics.quantiles(ratios, n=4)[::2]],
        "cpu_milliseconds": {prompts: round(1e3 * statistics.median(found), 1) for prompts, found in seconds.items()},
        "batch": len(batch.images),
        "size": list(batch.images.shape[2:]),
        "rounds": rounds,
        "environment": describe(torch.device("cpu")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--hosts", nargs="+", default=["knet", "queryinst", "mask2former"])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, nargs=2, default=(480, 800))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    short, long = options.size
    data = PseudoLabelDataset(options.dataset, size=(short, long), vectors=("seed",), min_masks=2)
    batch = collate([data[i] for i in range(options.batch)])
    known = json.loads(options.json.read_text()) if options.json is not None and options.json.exists() else {}
    result = {"benchmark": "prompts", "hosts": known.get("hosts", {})}
    for host in options.hosts:
        result["hosts"][host] = compare(host, data, batch, options.rounds)
        publish(result, options.json)


if __name__ == "__main__":
    main()
