"""The model that a run's checkpoint holds."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...models.backbones.base import Backbone
from ...models.backbones.registry import build_backbone
from ...models.detector import Detector
from ...models.registry import build_detector
from ...schemas.errors import UserError
from ...schemas.load import parse_settings
from ...schemas.run import RunCard
from ...schemas.section import identity
from ...schemas.training.registry import find_model
from ...schemas.training.sections import SupervisedConfig
from ...stages.instances.training import detector_state
from ...stages.training.checkpoints import read_newest
from ...store.run import Run


@dataclass(frozen=True, slots=True, eq=False)
class LoadedDetector:
    """A trained model in eval mode on the CPU, and what it was trained as.

    `sha256` is of all that decides what it finds: its tensors, and the settings it was built with.
    """

    module: Detector
    config: SupervisedConfig
    card: RunCard
    name: str
    sha256: str

    @property
    def size(self) -> tuple[int, int]:
        """Short and long side it was trained at, in pixels."""
        return self.config.data.short_side, self.config.data.long_side

    @property
    def categories(self) -> list[int]:
        """The ids that its labels stand for; 1 for a model without classes."""
        return list(self.card.categories) or [1]


def build_model(config: SupervisedConfig, backbone: Backbone, num_classes: int) -> Detector:
    """The untrained model around a backbone; its fresh parameters come from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.trainer.seed)
        return build_detector(config, backbone, num_classes)


def read_state(folder: Path) -> tuple[RunCard, dict[str, Tensor]]:
    """A run's card and the tensors of its detector: of the average, where the run keeps one."""
    card = Run(folder).read_card()
    if card.recipe == "densecl":
        raise UserError(f"{folder} is a run of densecl: `densecl export` it, and give the file as --weights.")
    found = read_newest(Run(folder))
    if found is None:
        raise UserError(f"{folder} has no checkpoint yet: train it first.")
    if found.averaged is not None:
        module = {n.removeprefix("module."): v for n, v in found.averaged.items() if n.startswith("module.")}
        return card, module
    return card, detector_state(found.state)


def load_detector(folder: Path) -> LoadedDetector:
    """The model of a run, ready to be used. Raises UserError for a folder that holds none."""
    card, state = read_state(folder)
    if card.model == "unilseg":
        raise UserError(f"{folder} is a run of unilseg, which is asked in words: say what to segment with --text.")
    kind = find_model(card.model).training
    config = parse_settings(kind, {name: v for name, v in card.config.items() if name in kind.model_fields})
    backbone = build_backbone(card.arch, stride_in_1x1=config.model.stride_in_1x1)
    module = build_model(config, backbone, max(1, card.num_classes))
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        words = " ".join(str(error).split())[:200]
        raise UserError(f"The checkpoint in {folder} does not fit its card ({words}): restore them.") from None
    digest = _sha256(card, config, state)
    return LoadedDetector(module.eval().requires_grad_(False), config, card, folder.name, digest)


def _sha256(card: RunCard, config: SupervisedConfig, state: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps([card.arch, card.num_classes, identity(config.model)]).encode())
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
