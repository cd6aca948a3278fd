"""Where a detector's training begins: at a backbone, or at a run."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...models.detector import Detector
from ...schemas.errors import UserError
from ...schemas.run import RunCard
from ...schemas.training.registry import find_model
from ...schemas.training.sections import SupervisedConfig
from ...stages.backbone import LoadedBackbone, load_backbone
from ...stages.device import resolve_precision
from ...stages.instances.training import transfer
from .job import TrainingJob
from .model import build_model, read_state

Documents = list[tuple[str, Any]]

# What a run does not take over from the one it starts from: the model's name, and settings of fine-tuning itself
_NOT_SHAPE = {"host", "freeze", "mask_logits"}


@dataclass(frozen=True, slots=True, eq=False)
class Beginning:
    """The configuration as it is resolved, the backbone, and the run before with its tensors, if there was one."""

    config: SupervisedConfig
    backbone: LoadedBackbone
    before: RunCard | None
    state: dict[str, Tensor]

    def with_config(self, config: SupervisedConfig) -> "Beginning":
        """The same with what else is known of the configuration."""
        return replace(self, config=config)

    def about(self) -> dict[str, Any]:
        """What a card says of it."""
        return {
            "model": self.config.model.host,
            "config": self.config.model_dump(mode="json"),
            "arch": self.backbone.arch,
            "weights": self.backbone.weights,
            "weights_sha256": self.backbone.weights_sha256,
        }

    def build(self, num_classes: int, *, keep_classes: bool = False) -> tuple[Detector, Documents]:
        """The model, with all that fits from the run before but, unless `keep_classes`, what depends on classes."""
        host = build_model(self.config, self.backbone.module, num_classes)
        if self.before is None:
            return host, []
        taken, fresh = transfer(host, self.state, skip=() if keep_classes else tuple(host.class_layers()))
        return host, [("transfer.json", {"transferred": taken, "fresh": fresh})]

    def after(self, card: RunCard, start: str | None) -> RunCard:
        """The card, with where the run before came from."""
        if self.before is None:
            return card
        weights = {"weights": self.before.weights, "weights_sha256": self.before.weights_sha256}
        return card.model_copy(update={**weights, "pretrained": start})


def begin(
    job: TrainingJob,
    config: SupervisedConfig,
    device: torch.device,
    *,
    parent: str | None = None,
    fresh: frozenset[str] = frozenset(),
) -> Beginning:
    """At `weights`, or at the run `start`: of the same model, or of `parent`, which lacks the settings `fresh`."""
    inputs = job.inputs
    if inputs.start is None:
        backbone = load_weights(inputs.weights, config)
        return Beginning(resolved(config, backbone, device), backbone, None, {})
    before, state = read_state(Path(inputs.start))
    model = config.model.host
    becomes = find_model(before.model).finetuned_as or before.model
    if model not in (before.model, becomes) and before.model != parent:
        raise UserError(f"{inputs.start} is a run of {before.model}: give --model {becomes}, or its backbone.")
    config = _same_shape(config, before, _NOT_SHAPE if before.model == model else _NOT_SHAPE | fresh)
    backbone = load_backbone("random", arch=before.arch, stride_in_1x1=config.model.stride_in_1x1)
    return Beginning(resolved(config, backbone, device), backbone, before, state)


def load_weights(weights: str | None, config: SupervisedConfig) -> LoadedBackbone:
    """The backbone that the user names."""
    if weights is None:
        raise UserError("Training needs a backbone: give --weights, a file or a registered name (`weights list`).")
    backbone = load_backbone(weights, stride_in_1x1=config.model.stride_in_1x1)
    if backbone.own_colours:
        raise UserError(
            f"{weights} has a mean or std of its own, and models train with ImageNet's: take other weights."
        )
    return backbone


def resolved(config: SupervisedConfig, backbone: LoadedBackbone, device: torch.device) -> SupervisedConfig:
    """With what backbone and device decide."""
    precision = resolve_precision(config.trainer.precision, device)
    model = config.model.model_copy(update={"stride_in_1x1": backbone.stride_in_1x1})
    trainer = config.trainer.model_copy(update={"precision": precision})
    return config.model_copy(update={"model": model, "trainer": trainer})


def _same_shape(config: SupervisedConfig, before: RunCard, apart: set[str] | frozenset[str]) -> SupervisedConfig:
    """With the model's own settings as they were before, but those `apart`."""
    kind = type(config.model)
    old = {name: v for name, v in before.config["model"].items() if name in kind.model_fields and name != "host"}
    same = {n: v for n, v in kind.model_validate({**old, "host": config.model.host}) if n not in apart}
    return config.model_copy(update={"model": config.model.model_copy(update=same)})
