"""What is trained: the part of a training run that differs from recipe to recipe."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ...models.distributed import process_count
from ...schemas.errors import UserError
from ...store.run import Skipped
from .averages import Averages


@dataclass(frozen=True, slots=True)
class Schedule:
    """Steps of a run. A step is one of the optimizer, over `batch` images of all processes, unless it says micro."""

    batch: int
    accumulate: int  # parts in which a step's batch is computed
    epoch_steps: int
    epochs: int

    @property
    def total_steps(self) -> int:
        """Of the whole run."""
        return self.epoch_steps * self.epochs

    @property
    def micro_batch(self) -> int:
        """Images of all processes in one pass."""
        return self.batch // self.accumulate


@dataclass(frozen=True, slots=True)
class Loop:
    """What the loop needs to know of a recipe's configuration."""

    seed: int
    precision: str
    log_every: int
    checkpoint_every: int
    evaluate_every: int = 0  # epochs; 0 is at the end alone
    clip: float = 0.0  # largest norm of the gradient; 0 is no limit
    ema: float = 0.0  # share of itself that the averaged model keeps per step; 0 is none


@dataclass(frozen=True, slots=True)
class Part:
    """The micro steps [start, stop) of process `rank` of `world`."""

    start: int
    stop: int
    rank: int
    world: int
    on_gpu: bool


ParamGroup = dict[str, Any]  # as torch has it: params, weight_decay, and `factor`, on the learning rate


class Batch(Protocol):
    """What a loader gives: it moves to a device and says what was passed over to make it."""

    @property
    def skipped(self) -> Sequence[Skipped]: ...  # noqa: D102

    def to(self: "B", device: torch.device) -> "B": ...  # noqa: D102


B = TypeVar("B", bound=Batch)


class Recipe(lightning.LightningModule, Generic[B]):
    """A model in training.

    `step` counts micro steps from the start of the run; with the seed it is the source of every random number.
    `averages` and `epoch_averages` collect what the curves show.
    """

    schedule: Schedule
    loop: Loop

    def __init__(self, schedule: Schedule, loop: Loop) -> None:
        super().__init__()
        self.schedule, self.loop = schedule, loop
        self.step = 0
        self.stop_at = schedule.total_steps * schedule.accumulate  # micro step at which this call ends
        self.averages, self.epoch_averages = Averages(), Averages()

    # What a recipe says ---------------------------------------------------------------------------------------------

    def loader(self, part: Part) -> DataLoader[B]:
        """The batches of some steps, which depend on seed and step alone."""
        raise NotImplementedError

    def losses(self, batch: B) -> dict[str, Tensor]:
        """Weighted losses by name; their sum is minimised."""
        raise NotImplementedError

    def groups(self) -> list[ParamGroup]:
        """What is trained, and how fast."""
        raise NotImplementedError

    def rate(self, step: int) -> float:
        """Learning rate at an optimizer step."""
        raise NotImplementedError

    def optimizer(self, groups: list[ParamGroup]) -> torch.optim.Optimizer:
        """An optimizer of these groups."""
        raise NotImplementedError

    def noted(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the curves show of a step beside its loss."""
        return losses

    def gauges(self) -> dict[str, float]:
        """Further numbers, taken when the curves are written."""
        return {}

    def averaged(self) -> nn.Module:
        """The model that is averaged over steps where `loop.ema` asks for it, and that is evaluated."""
        raise NotImplementedError

    def check_skipped(self, count: int) -> None:
        """Raise UserError if so many images that were passed over are too many."""

    def memory_advice(self) -> str:
        """What to change when memory does not suffice, as the end of a sentence."""
        raise NotImplementedError

    def settings(self) -> tuple[str, str]:
        """The sections of the configuration that hold `lr` and `precision`, for advice."""
        raise NotImplementedError

    # What lightning asks --------------------------------------------------------------------------------------------

    @property
    def done(self) -> int:
        """Optimizer steps done."""
        return self.step // self.schedule.accumulate

    @property
    def learning_rate(self) -> float:
        """At the present step."""
        return self.rate(self.done)

    def train_dataloader(self) -> DataLoader[B]:
        """The loader of this process."""
        trainer = self.trainer
        on_gpu = trainer.strategy.root_device.type == "cuda"
        return self.loader(Part(self.step, self.stop_at, trainer.global_rank, trainer.world_size, on_gpu))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The recipe's."""
        groups = self.groups()
        self._factors = [group["factor"] for group in groups]  # those of an old checkpoint may lack them
        return self.optimizer(groups)

    def transfer_batch_to_device(self, batch: B, device: torch.device, dataloader_idx: int) -> B:  # noqa: ARG002
        """All that is needed there."""
        return batch.to(device)

    def training_step(self, batch: B, batch_idx: int) -> Tensor:  # noqa: ARG002
        """The loss of one part of a batch."""
        if self.step % self.schedule.accumulate == 0:
            groups = self.optimizers().param_groups  # type: ignore[union-attr]
            for group, factor in zip(groups, self._factors, strict=True):
                group["lr"] = self.learning_rate * factor
        devices = [] if self.device.type == "cpu" else [self.device]
        rank = torch.distributed.get_rank() if process_count() > 1 else 0
        with torch.random.fork_rng(devices=devices):
            seed_step(hash((self.loop.seed, self.step, rank)) % 2**63, self.device)
            losses = self.losses(batch)
        total: Tensor = torch.stack(list(losses.values())).sum()
        values = {"loss": total, **self.noted(losses)}
        self.averages.add(**values)
        self.epoch_averages.add(**values)
        self.step += 1
        return total


def seed_step(seed: int, device: torch.device) -> None:
    """As `torch.manual_seed` for this device, without its milliseconds: it writes a stack trace for each other kind."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def average_count(count: Tensor) -> Tensor:
    """The mean of a count over all processes, but at least one in all of them (see `models.detector.Average`)."""
    world = process_count()
    if world > 1:
        count = count.clone()
        torch.distributed.all_reduce(count)
    return count.clamp_min(1) / world


def check_processes(schedule: Schedule, processes: int) -> None:
    """Raise UserError if a batch cannot be shared by so many processes."""
    if schedule.micro_batch % processes:
        parts = f" in {schedule.accumulate} parts" if schedule.accumulate > 1 else ""
        raise UserError(
            f"A batch of {schedule.batch}{parts} is not a multiple of the {processes} processes: change one of them."
        )


AnyRecipe = Recipe[Any]
