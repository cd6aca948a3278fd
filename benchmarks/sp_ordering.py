"""Does the ordering of the paper hold on a small world? Pre-training arms of three models, fine-tuned on few labels.

    python benchmarks/sp_ordering.py --work DIR --json F [--hosts knet,queryinst,mask2former] [--seeds 5]
        [--arms 'NAME; ...'] [--set model.stages=3] [--minutes 25]
    python benchmarks/sp_ordering.py --merge F1 F2 --json F --figure P

Each model is pre-trained on generated scenes (scenes.py) in each of the ways of Saliency Prompt, Tables 3, 4, 5 and 7,
and then fine-tuned on a few annotated scenes. Seeds are paired: what a seed draws (fresh parameters, order of images,
flips) is the same in every arm, and arms are compared by their differences seed by seed. Pseudo-labels come from the
pipeline; "random" are rectangles, "good" the true masks. What is in F already is not run again, so that a long
comparison can be made in pieces of so many minutes, or by several processes with a file each that are merged.
"""

import argparse
import json
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from environment import describe
from sp_claims import draw_claims, summarise
from sp_world import CPU, LABELLING, World, flipped, label
from torch import Tensor, nn

from saliency_prompt.models.detector import alone
from saliency_prompt.models.queries.kernel_loss import kernel_loss
from saliency_prompt.models.queries.prompting import Prompting, start_with_prompts
from saliency_prompt.pipeline.training.model import build_model
from saliency_prompt.schemas.training.registry import load_training_config
from saliency_prompt.stages.instances.training import transfer

__all__ = ["label"]
HOSTS = ("knet", "queryinst", "mask2former")


@dataclass(frozen=True)
class Arm:
    """How a model is pre-trained; `assigner` None is not at all."""

    assigner: str | None
    kernel_loss: bool = True
    inject_at: str = "after_head"
    source: str = "saliency"
    scale: str = "none"
    dropout: float = 0.05


ARMS = {
    "no pre-training": Arm(None),
    "none, no kernel loss": Arm("none", kernel_loss=False),
    "none": Arm("none"),
    "cosine": Arm("cosine"),
    "cosine, before head": Arm("cosine", inject_at="before_head"),
    "cosine, no kernel loss": Arm("cosine", kernel_loss=False),
    "sequential": Arm("sequential"),
    "random": Arm("random"),
    "none, good masks": Arm("none", source="good"),
    "cosine, good masks": Arm("cosine", source="good"),
    "none, random masks": Arm("none", source="random"),
    "cosine, random masks": Arm("cosine", source="random"),
    "cosine, as long as the query": Arm("cosine", scale="match"),
    "cosine, half of the queries": Arm("cosine", dropout=0.5),
}
SMALL = ["model.freeze=all", "model.queries=16", "model.channels=64"]
SMALLER = {
    "knet": ["model.stages=2"],
    "queryinst": ["model.stages=2"],
    "mask2former": ["model.stages=3", "model.encoder_stages=1", "loss.points=512"],
}


@dataclass(frozen=True)
class Size:
    """How long a unit runs, and with which settings of the models beside SMALL and SMALLER."""

    pretrain: int
    finetune: int
    batch: int
    rate: float
    warmup: int = 10
    settings: tuple[str, ...] = ()

    def rate_at(self, step: int, steps: int) -> float:
        """Linear warm-up, then a cosine."""
        return self.rate * min(1.0, (step + 1) / self.warmup) * (1 + math.cos(math.pi * step / steps)) / 2


def draw(samples: list[Any], size: Size, seed: int, steps: int) -> list[tuple[list[int], list[bool]]]:
    """Which samples make each step's batch, and which of them are mirrored."""
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    while len(order) < steps * size.batch:
        order += torch.randperm(len(samples), generator=generator).tolist()
    flips = (torch.rand(steps * size.batch, generator=generator) < 0.5).tolist()
    parts = [slice(i * size.batch, (i + 1) * size.batch) for i in range(steps)]
    return [(order[part], flips[part]) for part in parts]


def learn(module: nn.Module, losses: Any, samples: list[Any], size: Size, seed: int, steps: int) -> None:
    """AdamW on all that is trained; `losses` are of images, targets and seeds of a batch."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.01)
    torch.manual_seed(seed)
    module.train()
    for step, (places, flips) in enumerate(draw(samples, size, seed, steps)):
        for group in optimizer.param_groups:
            group["lr"] = size.rate_at(step, steps)
        chosen = [samples[place] for place in places]
        moved = [flipped(*one[:2]) if flip else one[:2] for one, flip in zip(chosen, flips, strict=True)]
        found = losses(torch.stack([i for i, _ in moved]), [t for _, t in moved], [one[2:] for one in chosen])
        optimizer.zero_grad()
        torch.stack(list(found.values())).sum().backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()


def pretrain(world: World, host: Any, arm: Arm, size: Size, seed: int) -> float:
    """Prompts, kernel loss and the host's own losses; the length of prompts over that of their queries at the end."""
    samples, shape, ratios = world.sources[arm.source], (world.side, world.side), [0.0]
    how = None
    if arm.assigner != "none":
        how = Prompting(arm.assigner, arm.inject_at, scale=arm.scale, dropout=arm.dropout)  # type: ignore[arg-type]
    project = nn.Linear(samples[0][2].shape[1], host.channels)

    def losses(images: Tensor, targets: list[Any], rest: list[Any]) -> dict[str, Tensor]:
        pyramid, sizes = host.features(images), [shape] * len(images)
        if how is None:
            initial = host.start(pyramid, sizes)
            queries = initial.queries
        else:
            prompted = start_with_prompts(host, pyramid, sizes, targets, how)
            initial, queries = prompted.initial, prompted.queries
            ratios.append(prompted.ratio.item())
        refined = host.refine(initial, queries)
        found, pairs = host.criterion(initial, refined, targets, alone)
        if arm.kernel_loss:
            seeds, counts = project(torch.cat([one for (one,) in rest])), [len(one.labels) for one in targets]
            found |= kernel_loss(refined, pairs, seeds, counts, weight=1.0, average=alone)
        return found

    learn(nn.ModuleList([host, project]), losses, samples, size, seed, size.pretrain)
    return ratios[-1]


def run_unit(world: World, name: str, arm: Arm, size: Size, seed: int) -> dict[str, Any]:
    """One model, one arm, one seed."""
    start = time.process_time()
    config = load_training_config(
        name, "tiny", overrides=[f"trainer.seed={seed}", *SMALL, *SMALLER[name], *size.settings]
    )
    unit: dict[str, Any] = {}
    tuned = build_model(config, world.backbone, 3)
    if arm.assigner is not None:
        host = build_model(config, world.backbone, 1)
        unit["prompt_ratio"] = round(pretrain(world, host, arm, size, seed), 5)
        skip = (*tuned.class_layers(), "backbone.")
        transfer(tuned, host.state_dict(), skip=skip)
    shape = (world.side, world.side)

    def losses(images: Tensor, targets: list[Any], _: list[Any]) -> dict[str, Tensor]:
        return tuned.losses(images, [shape] * len(images), targets, alone)

    learn(tuned, losses, world.labelled, size, seed, size.finetune)
    return {**unit, **world.judge(tuned), "cpu_seconds": round(time.process_time() - start, 1)}


def merge(paths: list[Path]) -> dict[str, Any]:
    """The units of several files of one size."""
    parts = [json.loads(path.read_text()) for path in paths]
    if any(one["size"] != parts[0]["size"] for one in parts):
        raise SystemExit("these files are of comparisons of different sizes: merge those of one")
    whole = {**parts[0], "units": {}}
    for part in parts:
        for host, arms in part["units"].items():
            for name, seeds in arms.items():
                whole["units"].setdefault(host, {}).setdefault(name, {}).update(seeds)
    return whole


def finish(result: dict[str, Any], options: argparse.Namespace) -> None:
    """Add the summary, write the file, and draw."""
    done = {host: {name: one for name, one in arms.items() if one} for host, arms in result["units"].items()}
    result["hosts"] = {host: summarise(arms) for host, arms in done.items()}
    options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.figure:
        draw_claims(result["hosts"], "AP_agnostic", options.figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--weights", default="densecl-r18-mini", help="the models' backbone")
    parser.add_argument("--hosts", default=",".join(HOSTS))
    parser.add_argument("--arms", default=";".join(ARMS), help="some of them, between semicolons")
    parser.add_argument("--labeller", default="lab-color", help="what the pseudo-labels are made with")
    parser.add_argument("--counts", type=int, nargs=3, default=(300, 150, 80), help="unlabelled, labelled, held out")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--pretrain-steps", type=int, default=300)
    parser.add_argument("--finetune-steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--set", action="append", default=[], help="of every model")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--merge", type=Path, nargs="+", help="only join these results")
    parser.add_argument("--figure", type=Path, help="a picture of the differences")
    options = parser.parse_args()
    if options.merge:
        finish(merge(options.merge), options)
        return
    if options.work is None:
        parser.error("give --work, a folder for the scenes")
    began = time.time()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    steps = (options.pretrain_steps, options.finetune_steps)
    size = Size(*steps, options.batch, options.rate, settings=tuple(options.set))
    result: dict[str, Any] = {"benchmark": "sp_ordering", "units": {}}
    if options.json.exists():
        result = json.loads(options.json.read_text())
    world = World(options.work.absolute(), options.weights, options.labeller, tuple(options.counts), options.side)
    names = [name.strip() for name in options.arms.split(";")]
    about = {
        "pseudo_labels": world.quality,
        "size": {"scenes": list(options.counts), "side": options.side, **asdict(size), "settings": options.set},
        "weights": Path(options.weights).name,
        "labeller": options.labeller,
        "labelling": LABELLING,
        "environment": describe(CPU),
    }
    if {"settings": [], **result.get("size", about["size"])} != about["size"]:
        parser.error(f"{options.json} was made at another size: give another file")
    result |= about
    # all arms of a seed before the next seed: what is there when time is up is paired
    for seed in range(options.seeds):
        for name in names:
            for host in options.hosts.split(","):
                if host == "queryinst" and ARMS[name].inject_at == "before_head":
                    continue  # nothing is made of its queries before the first stage: the same as after
                units = result["units"].setdefault(host, {}).setdefault(name, {})
                if str(seed) in units or time.time() - began > 60 * options.minutes:
                    continue
                units[str(seed)] = run_unit(world, host, ARMS[name], size, seed)
                print(f"{time.time() - began:5.0f} s: {host}, {name}, {seed}: {units[str(seed)]}", flush=True)
                options.json.write_text(json.dumps(result, indent=1) + "\n")
    finish(result, options)


if __name__ == "__main__":
    main()
