"""What recipes of models that find instances share: batches, parameters, rates."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ...models.detector import Detector
from ...schemas.errors import UserError
from ...schemas.training.sections import SupervisedConfig
from ..repeat_factors import Floats
from ..training.recipe import Loop, ParamGroup, Part, Recipe, Schedule
from ..training.schedules import cosine, poly, steps, warmup
from .augment import Augmented, Samples
from .order import TrainingOrder, epoch_steps
from .samples import Batch, Sample, collate

STAGE = re.compile(r"_\d+$")  # at the end of a loss's name
PREFIX = "host."  # of the detector's tensors in checkpoints


class InstanceRecipe(Recipe[Batch]):
    """A detector on samples; `losses` is left to the recipe.

    `factors_I`: how often a pass draws each image, on average; without, once.
    """

    def __init__(
        self, host: Detector, config: SupervisedConfig, data: Samples, factors_I: Floats | None = None
    ) -> None:
        trainer = config.trainer
        count = len(data) if factors_I is None else round(float(factors_I.sum()))
        plan = Schedule(config.data.batch_size, trainer.accumulate, epoch_steps(config, count), trainer.max_epochs)
        loop = Loop(
            trainer.seed,
            trainer.precision,
            trainer.log_every,
            trainer.checkpoint_every,
            trainer.evaluate_every,
            trainer.clip,
            trainer.ema,
        )
        super().__init__(plan, loop)
        self.host = host
        self.config = config
        self._data, self._factors_I = data, factors_I
        freeze(host, config.model.freeze)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(host.backbone.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(host.backbone.std).view(1, 3, 1, 1), persistent=False)

    def loader(self, part: Part) -> DataLoader[Batch]:
        """See `Recipe`."""
        plan, data = self.schedule, self.config.data
        order = TrainingOrder(
            len(self._data),
            plan.micro_batch,
            plan.epoch_steps * plan.accumulate,
            self.loop.seed,
            part.start,
            part.stop,
            part.rank,
            part.world,
            self._factors_I,
        )
        return DataLoader(
            self.samples(),  # type: ignore[arg-type]
            batch_sampler=order,
            num_workers=data.workers,
            collate_fn=self.collate(),
            pin_memory=part.on_gpu,
            generator=torch.Generator(),
            multiprocessing_context="fork" if data.workers else None,
        )

    def samples(self) -> Dataset[Sample]:
        """What a batch is made of; the index is (place, turn)."""
        return Augmented(self._data, self.config.data, self.loop.seed)

    def collate(self) -> Callable[[Sequence[Sample]], Batch]:
        """From samples to a batch."""
        return partial(collate, multiple=self.host.multiple)

    def train(self, mode: bool = True) -> "InstanceRecipe":
        """Norms of the backbone use running statistics always."""
        super().train(mode)
        self.host.backbone.eval()
        return self

    def groups(self) -> list[ParamGroup]:
        """The backbone has a rate of its own."""
        decay = self.config.trainer.weight_decay
        backbone = [p for p in self.host.backbone.parameters() if p.requires_grad]
        mine = {id(p) for p in self.host.backbone.parameters()}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in mine]
        groups: list[ParamGroup] = [{"params": rest, "factor": 1.0, "weight_decay": decay}]
        if not self.config.trainer.decay_norms:
            bare = {id(p) for p in undecayed(self)}
            groups = [
                {"params": [p for p in rest if id(p) not in bare], "factor": 1.0, "weight_decay": decay},
                {"params": [p for p in rest if id(p) in bare], "factor": 1.0, "weight_decay": 0.0},
            ]
        if backbone:
            factor = self.config.trainer.backbone_lr
            groups.append({"params": backbone, "factor": factor, "weight_decay": decay})
        return groups

    def optimizer(self, groups: list[ParamGroup]) -> torch.optim.Optimizer:
        """AdamW or SGD."""
        if self.config.trainer.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=self.learning_rate, momentum=self.config.trainer.momentum)
        return torch.optim.AdamW(groups, lr=self.learning_rate)

    def rate(self, step: int) -> float:
        """Linear warm-up from a thousandth, then as configured."""
        trainer, done = self.config.trainer, step / self.schedule.total_steps
        falls = {
            "steps": lambda: steps(done, trainer.decay_at),
            "cosine": lambda: cosine(done),
            "poly": lambda: poly(done),
            "constant": lambda: 1.0,
        }
        return self.config.learning_rate * falls[trainer.schedule]() * warmup(step, trainer.warmup_steps)

    def noted(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Losses by kind: those of several stages together."""
        kinds: dict[str, Tensor] = {}
        for name, value in losses.items():
            kind = f"loss_{STAGE.sub('', name.removeprefix('initial_'))}"
            kinds[kind] = kinds.get(kind, torch.zeros_like(value)) + value.detach()
        return kinds

    def averaged(self) -> nn.Module:
        """The detector."""
        return self.host

    def normalise(self, images_B3HW: Tensor) -> Tensor:
        """uint8 RGB to the backbone's input."""
        normal: Tensor = (images_B3HW.float() - self.mean) / self.std
        return normal

    def memory_advice(self) -> str:
        """See `Recipe`."""
        parts = self.schedule.accumulate * 2
        return (
            f"set trainer.accumulate={parts} (the same batch of {self.schedule.batch} in {parts} parts), a smaller "
            "data.batch_size or a smaller data.short_side"
        )

    def settings(self) -> tuple[str, str]:
        """See `Recipe`."""
        return "trainer", "trainer"


def undecayed(module: nn.Module) -> list[nn.Parameter]:
    """Parameters of normalisation layers, and learned embeddings: tensors that no linear layer or convolution holds."""
    norms = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
    weighted = (nn.Linear, nn.modules.conv._ConvNd, nn.MultiheadAttention)
    return [
        parameter
        for part in module.modules()
        if isinstance(part, norms) or not isinstance(part, weighted)
        for parameter in part.parameters(recurse=False)
    ]


def freeze(host: Detector, what: str) -> None:
    """Fix the backbone's first layers or all of it, and train the rest; its norms are fixed in any case."""
    stem = host.backbone.stem
    if what == "stem" and not any(name.startswith(stem) for name, _ in host.backbone.named_parameters()):
        raise UserError("of this backbone the first layers are not known: set model.freeze to all or none")
    for name, parameter in host.backbone.named_parameters():
        # said of every parameter: a loaded backbone comes with all of them fixed
        parameter.requires_grad_(what == "none" or (what == "stem" and not name.startswith(stem)))
    for module in host.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)


def transfer(host: Detector, state: dict[str, Tensor], *, skip: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Take every tensor whose name and shape fit: names taken, names left fresh.

    Those of the prefixes `skip` stay fresh, but for what the detector makes of the state itself (`Detector.inherit`).
    """
    mine = host.state_dict()
    fitting = {
        name: value
        for name, value in state.items()
        if name in mine and mine[name].shape == value.shape and not name.startswith(skip)
    }
    fitting |= host.inherit(state)
    host.load_state_dict(fitting, strict=False)
    return sorted(fitting), sorted(set(mine) - set(fitting))


def detector_state(state: dict[str, Any]) -> dict[str, Tensor]:
    """The detector's tensors in the state dict of a checkpoint."""
    return {name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)}
