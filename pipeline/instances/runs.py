"""The folder of a training run: its card, and the model that its checkpoint holds."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...models.backbones.base import Backbone
from ...models.backbones.registry import build_backbone
from ...models.queries.host import AnyHost
from ...models.queries.knet.model import KNet
from ...schemas.errors import UserError
from ...schemas.instances import InstanceConfig
from ...schemas.load import parse_settings
from ...stages.densecl.checkpoint import check_new, newest_checkpoint, read_checkpoint
from ...stages.instances.module import host_state

CARD = "run.json"
# Fields that change neither the result nor its meaning.
_FREE = {("data", "workers"), ("trainer", "log_every"), ("trainer", "checkpoint_every"), ("trainer", "evaluate_every")}


@dataclass(frozen=True, slots=True, eq=False)
class TrainedModel:
    """What a run's newest checkpoint holds."""

    host: AnyHost
    config: InstanceConfig
    card: dict[str, Any]


def build_host(config: InstanceConfig, backbone: Backbone, num_classes: int, seed: int) -> AnyHost:
    """The untrained model around a backbone; its fresh parameters come from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return KNet(
            backbone,
            num_classes,
            num_queries=config.model.queries,
            channels=config.model.channels,
            stages=config.model.stages,
            hidden=config.model.hidden,
            class_weight=config.loss.classes,
            dice_weight=config.loss.dice,
            mask_weight=config.loss.mask,
            semantic_weight=config.loss.semantic,
        )


def open_run(out: Path, card: dict[str, Any], *, resume: bool) -> None:
    """Begin a run in `out`, or check that the one there is the same. Raises UserError if it is not, or unasked."""
    check_new(out, resume=resume)
    if newest_checkpoint(out) is not None:
        before = read_card(out)
        differing = [key for key in card if key != "config" and before.get(key) != card[key]]
        old, new = before["config"], card["config"]
        differing += [
            f"{section}.{field}"
            for section, fields in new.items()
            for field, value in fields.items()
            if (section, field) not in _FREE and old[section].get(field) != value
        ]
        if differing:
            raise UserError(f"The run in {out} began with another {', '.join(differing)}: undo the change.")
        return
    if is_first_process():
        write_card(out, card)


def is_first_process() -> bool:
    """Whether this process is the one of its group that writes files."""
    return os.environ.get("RANK", "0") == os.environ.get("LOCAL_RANK", "0") == "0"


def write_card(out: Path, card: dict[str, Any]) -> None:
    """Write `run.json`."""
    out.mkdir(parents=True, exist_ok=True)
    part = out / f"{CARD}.{os.getpid()}"
    part.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    part.replace(out / CARD)


def read_card(run: Path) -> dict[str, Any]:
    """Read `run.json`; UserError if this is no such run."""
    try:
        card: dict[str, Any] = json.loads((run / CARD).read_text(encoding="utf-8"))
        if card["kind"] in ("pretrain", "finetune"):
            return card
    except (OSError, ValueError, KeyError):
        pass
    raise UserError(f"{run} holds no run of `pretrain` or `finetune`: give the folder one of them wrote.")


def read_state(run: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A run's card and the tensors of its model."""
    card = read_card(run)
    checkpoint = newest_checkpoint(run)
    if checkpoint is None:
        raise UserError(f"{run} has no checkpoint yet: train it first.")
    return card, host_state(read_checkpoint(checkpoint)["state_dict"])


def load_model(run: Path) -> TrainedModel:
    """The model of a run, ready to be used."""
    card, state = read_state(run)
    config = parse_settings(InstanceConfig, card["config"])
    host = build_host(
        config,
        build_backbone(card["arch"], stride_in_1x1=config.model.stride_in_1x1),
        card["num_classes"],
        0,
    )
    host.load_state_dict(state)
    return TrainedModel(host.eval(), config, card)
