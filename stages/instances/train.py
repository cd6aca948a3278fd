"""The training loop of query-based models: lightning around the module, exact resume, curves, evaluation."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ...schemas.errors import UserError
from ...schemas.instances import InstanceConfig
from ..densecl.checkpoint import append_curves, newest_checkpoint, read_checkpoint, save_checkpoint
from ..densecl.diagnostics import is_finite
from ..device import resolve_precision
from ..loop import find_processes, make_trainer, out_of_memory, quiet
from .augment import Augmented, build_transforms
from .module import InstanceTraining
from .samples import Sample, collate

Evaluate = Callable[[InstanceTraining], dict[str, float]]


@dataclass(frozen=True, slots=True)
class Progress:
    """How a run stands: what a reporter is told at each entry of the curves."""

    step: int
    total_steps: int
    epoch: int
    epochs: int
    images_per_second: float
    values: dict[str, float]
    skipped: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call of `train` did."""

    step: int
    finished: bool
    checkpoint: Path
    values: dict[str, float]  # of the last evaluation


class TrainingOrder:
    """Which (place, turn) every step takes: a permutation of each pass over the data, whole batches only.

    The same for any number of processes: each takes its share of the step's batch. `turn` is the position since the
    run's beginning, and seeds augmentation.
    """

    def __init__(
        self, count: int, batch: int, epoch_steps: int, seed: int, start: int, stop: int, rank: int, world: int
    ) -> None:
        self._count, self._batch, self._epoch_steps, self._seed = count, batch, epoch_steps, seed
        self._start, self._stop, self._rank, self._world = start, stop, rank, world

    def __len__(self) -> int:
        return self._stop - self._start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        share = self._batch // self._world
        for step in range(self._start, self._stop):
            epoch, place = divmod(step, self._epoch_steps)
            order = self._order(epoch)
            first = place * self._batch + self._rank * share
            turn = step * self._batch + self._rank * share
            yield [(int(order[first + i]), turn + i) for i in range(share)]

    def _order(self, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """As many passes as fill an epoch's steps."""
        need = self._epoch_steps * self._batch
        passes = -(-need // self._count)
        draw = [np.random.default_rng((self._seed, epoch, i)).permutation(self._count) for i in range(passes)]
        return np.concatenate(draw)


def epoch_steps(config: InstanceConfig, count: int) -> int:
    """Steps of an epoch over so many images; at least one."""
    return max(1, count * config.data.repeat // config.data.batch_size)


def train(
    module: InstanceTraining,
    data: Dataset[Sample],
    run: Path,
    device: torch.device,
    *,
    evaluate: Evaluate | None = None,
    processes: int = 1,
    stop: threading.Event | None = None,
    report: Callable[[Progress], None] = lambda _: None,
    max_steps: int | None = None,
    trainer_options: dict[str, Any] | None = None,
) -> Outcome:
    """Train from the newest checkpoint in `run`, if there is one, to the end, to `stop`, or for `max_steps` steps.

    Raises UserError for what the user can change: a loss that is no number, no memory left, odd numbers of processes.
    """
    config = module.config
    if config.data.batch_size % processes:
        raise UserError(f"data.batch_size is not a multiple of the {processes} processes: change it.")
    checkpoint = newest_checkpoint(run)
    content = None if checkpoint is None else read_checkpoint(checkpoint)
    if content is not None:
        module.load_state_dict(content["state_dict"])
        module.step = content["instance_step"]
    first = module.step
    last = module.total_steps if max_steps is None else min(module.total_steps, first + max_steps)
    loop = _Loop(data, run, content, last, stop or threading.Event(), report, evaluate)
    if first < last:
        with quiet():
            precision = resolve_precision(config.trainer.precision, device)
            where = trainer_options or find_processes(device, processes)
            trainer = make_trainer(run, loop, precision, where, gradient_clip_val=config.trainer.clip or None)
            try:
                trainer.fit(module)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if out_of_memory(error):
                    raise UserError(
                        f"There is not enough memory for {config.data.batch_size} images: set a smaller "
                        "data.batch_size or data.short_side."
                    ) from None
                raise
    return Outcome(module.step, module.step == module.total_steps, run / "last.ckpt", loop.values)


class _Loop(lightning.Callback):
    """Gives the data, restores the optimizer, writes curves and checkpoints, evaluates, and ends the run."""

    def __init__(
        self,
        data: Dataset[Sample],
        run: Path,
        content: dict[str, Any] | None,
        last: int,
        stop: threading.Event,
        report: Callable[[Progress], None],
        evaluate: Evaluate | None,
    ) -> None:
        self.values: dict[str, float] = {}
        self._data, self._run, self._content, self._last = data, run, content, last
        self._stop, self._report, self._evaluate = stop, report, evaluate
        self._skipped: set[str] = set()
        self._clock, self._clock_step = time.perf_counter(), 0

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:  # noqa: ARG002
        """Put the loader of this process into the module."""
        module = _of(pl_module)
        config, count = module.config, len(self._data)  # type: ignore[arg-type]
        self._epoch_steps = epoch_steps(config, count)
        seed = config.trainer.seed
        order = TrainingOrder(
            count,
            config.data.batch_size,
            self._epoch_steps,
            seed,
            module.step,
            self._last,
            trainer.global_rank,
            trainer.world_size,
        )
        workers = config.data.workers
        loader = DataLoader(
            Augmented(self._data, build_transforms(config.data), seed),
            batch_sampler=order,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=trainer.strategy.root_device.type == "cuda",
            generator=torch.Generator(),
            multiprocessing_context="fork" if workers else None,
        )
        module.train_dataloader = lambda: loader  # type: ignore[method-assign]

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Restore what lightning makes anew: the optimizer's moments and the scale of fp16 gradients."""
        if self._content is not None:
            trainer.optimizers[0].load_state_dict(self._content["optimizer_states"][0])
            plugin = trainer.precision_plugin
            if state := self._content.get(type(plugin).__qualname__):
                plugin.load_state_dict(state)
            self._content = None
        self._clock, self._clock_step = time.perf_counter(), _of(pl_module).step

    def on_save_checkpoint(
        self,
        trainer: lightning.Trainer,  # noqa: ARG002
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Add where the run stands."""
        checkpoint["instance_step"] = _of(pl_module).step

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,  # noqa: ARG002
        batch: Any,
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """After each step."""
        module = _of(pl_module)
        step, settings = module.step, module.config.trainer
        self._skipped |= set(batch.skipped)
        epoch, inside = divmod(step, self._epoch_steps)
        looks = step % settings.log_every == 0 or step == self._last or not inside
        if looks:
            self._log(trainer, module, step)
        stopped = looks and trainer.strategy.reduce_boolean_decision(self._stop.is_set(), all=False)
        if step % settings.checkpoint_every == 0 or step == self._last or stopped:
            if not is_finite(module):
                self._not_finite(module, "A parameter")
            save_checkpoint(trainer, self._run)
        due = not inside and settings.evaluate_every and epoch % settings.evaluate_every == 0
        if self._evaluate is not None and (due or step == module.total_steps):
            self._judge(trainer, module, step)
        if stopped:
            trainer.should_stop = True

    def _judge(self, trainer: lightning.Trainer, module: InstanceTraining, step: int) -> None:
        assert self._evaluate is not None
        if trainer.is_global_zero:
            module.eval()
            self.values = self._evaluate(module)
            module.train()
            self._write(trainer, {f"val/{name}": value for name, value in self.values.items()}, step)
        trainer.strategy.barrier()

    def _log(self, trainer: lightning.Trainer, module: InstanceTraining, step: int) -> None:
        means = module.averages.read()
        if not all(math.isfinite(value) for value in means.values()):
            self._not_finite(module, "The loss")
        now = time.perf_counter()
        rate = (step - self._clock_step) * module.config.data.batch_size / max(now - self._clock, 1e-9)
        self._clock, self._clock_step = now, step
        means |= {"lr": module.learning_rate, "images_per_second": rate}
        self._write(trainer, means, step)
        if trainer.is_global_zero:
            epoch = (step - 1) // self._epoch_steps + 1
            epochs = module.config.trainer.max_epochs
            self._report(Progress(step, module.total_steps, epoch, epochs, rate, means, len(self._skipped)))

    def _write(self, trainer: lightning.Trainer, values: dict[str, float], step: int) -> None:
        if trainer.is_global_zero:
            append_curves(self._run, {"step": step, **values})
        for logger in trainer.loggers:
            logger.log_metrics(values, step)

    def _not_finite(self, module: InstanceTraining, what: str) -> None:
        good = newest_checkpoint(self._run)
        resume = f"the last good checkpoint is {good}" if good else "no checkpoint had been written"
        raise UserError(
            f"{what} became NaN or infinite by step {module.step}; {resume}: start again from it with a lower "
            "--set trainer.lr, or with --set trainer.precision=fp32."
        )


def _of(module: lightning.LightningModule) -> InstanceTraining:
    assert isinstance(module, InstanceTraining)
    return module
