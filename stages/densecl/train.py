"""The training loop: lightning around the module, with checkpoints, curves, and mistakes said in one sentence."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch

from ...schemas.densecl import DenseCLConfig
from ...schemas.errors import UserError
from ...schemas.records import ImageRef
from ..backbone import load_backbone
from ..device import resolve_precision
from ..loop import find_processes, make_trainer, out_of_memory, quiet
from .checkpoint import append_curves, append_skipped, newest_checkpoint, read_checkpoint, read_skipped, save_checkpoint
from .diagnostics import is_finite, queue_health
from .module import DenseCLTraining, build_model
from .photos import PhotoSquares, Skipped, StepBatches, make_loader

_BN_PART = 32  # images whose statistics belong together, as on one of the papers' GPUs


@dataclass(frozen=True, slots=True)
class Schedule:
    """Steps of a run. A step is an optimizer step unless it says micro."""

    micro_batch: int  # images of all processes in one pass
    epoch_steps: int
    total_steps: int
    accumulate: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How a run stands: what a reporter is told at each entry of the curves."""

    step: int
    total_steps: int
    epoch: int
    epochs: int
    images_per_second: float
    step_rate: float  # optimizer steps per second
    values: dict[str, float]
    skipped: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call of `train` did: the step reached, whether that is the end, and where the checkpoint is."""

    step: int
    finished: bool
    checkpoint: Path
    skipped: int


def schedule(config: DenseCLConfig, count: int) -> Schedule:
    """The steps for so many photographs. Raises UserError if they don't fill one batch."""
    batch = config.optim.batch_size
    if count < batch:
        raise UserError(
            f"There are {count} usable photographs, fewer than one batch of {batch}: set --batch-size to at most "
            f"{count}, or give more photographs."
        )
    epoch_steps = count // batch
    return Schedule(
        batch // config.optim.accumulate, epoch_steps, epoch_steps * config.optim.epochs, config.optim.accumulate
    )


def bn_splits(config: DenseCLConfig, world: int) -> int:
    """Parts of a process's batch with statistics of their own; 0 in the configuration is decided here."""
    share = config.optim.batch_size // config.optim.accumulate // world
    splits = config.model.bn_splits or (max(1, share // _BN_PART) if world == 1 and share % _BN_PART == 0 else 1)
    if share % splits:
        raise UserError(
            f"A batch of {share} cannot be normalised in {splits} equal parts: set model.bn_splits to a divisor."
        )
    return splits


def train(
    refs: Sequence[ImageRef],
    config: DenseCLConfig,
    run: Path,
    device: torch.device,
    *,
    processes: int = 1,
    stop: threading.Event | None = None,
    report: Callable[[Progress], None] = lambda _: None,
    max_steps: int | None = None,
    trainer_options: dict[str, Any] | None = None,
) -> Outcome:
    """Train from the newest checkpoint in `run`, if there is one, to the end, to `stop`, or for `max_steps` steps.

    `processes` on this machine train together (DDP). `trainer_options` replaces how lightning finds its processes.
    Raises UserError for what the user can change: too few photographs, a loss that is no number, no memory left.
    """
    if config.optim.batch_size // config.optim.accumulate % processes:
        raise UserError(
            f"optim.batch_size / optim.accumulate is not a multiple of the {processes} processes: change it."
        )
    plan = schedule(config, len(refs))
    splits = bn_splits(config, processes)
    checkpoint = newest_checkpoint(run)
    content = None if checkpoint is None else read_checkpoint(checkpoint)
    model = build_model(config, None if content is not None else _initial_state(config), splits)
    module = DenseCLTraining(model, config, plan.total_steps * plan.accumulate)
    if content is not None:
        module.load_state_dict(content["state_dict"])
        module.step = content["densecl_step"]
    module.to(memory_format=torch.channels_last)
    first = module.optimizer_step_index
    last = plan.total_steps if max_steps is None else min(plan.total_steps, first + max_steps)
    if first < last:
        loop = _Loop(refs, run, plan, content, last, stop or threading.Event(), report)
        with quiet():
            precision = resolve_precision(config.train.precision, device)
            where = trainer_options or find_processes(device, processes)
            trainer = make_trainer(run, loop, precision, where, accumulate_grad_batches=plan.accumulate)
            try:
                trainer.fit(module)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                raise _explain(error, config) or error from None
    step = module.optimizer_step_index
    return Outcome(step, step == plan.total_steps, run / "last.ckpt", len(read_skipped(run)))


class _Loop(lightning.Callback):
    """Gives the data, restores the optimizer, writes curves and checkpoints, and ends the run."""

    def __init__(
        self,
        refs: Sequence[ImageRef],
        run: Path,
        plan: Schedule,
        content: dict[str, Any] | None,
        last: int,
        stop: threading.Event,
        report: Callable[[Progress], None],
    ) -> None:
        self._names = [ref.file_name for ref in refs]
        self._refs, self._run, self._plan, self._content, self._last = refs, run, plan, content, last
        self._stop, self._report = stop, report
        self._bad = set(read_skipped(run))
        self._clock, self._clock_step = time.perf_counter(), 0

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:  # noqa: ARG002
        """Put the loader of this process into the module."""
        assert isinstance(pl_module, DenseCLTraining)
        config, plan = pl_module.config, self._plan
        photos = PhotoSquares(self._refs, config.photos, sorted(self._bad))
        batches = StepBatches(
            len(self._refs),
            plan.micro_batch,
            plan.epoch_steps * plan.accumulate,
            config.train.seed,
            pl_module.step,
            self._last * plan.accumulate,
            trainer.global_rank,
            trainer.world_size,
        )
        on_gpu = pl_module.device.type == "cuda" or trainer.strategy.root_device.type == "cuda"
        workers = config.photos.workers
        if workers < 0:
            workers = 8 if on_gpu else int(not photos.cached)
        loader = make_loader(photos, batches, workers, pin=on_gpu)
        pl_module.train_dataloader = lambda: loader  # type: ignore[method-assign]

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Restore what lightning makes anew: the optimizer's momentum and the scale of fp16 gradients."""
        if self._content is not None:
            trainer.optimizers[0].load_state_dict(self._content["optimizer_states"][0])
            plugin = trainer.precision_plugin
            if state := self._content.get(type(plugin).__qualname__):
                plugin.load_state_dict(state)
            self._content = None
        assert isinstance(pl_module, DenseCLTraining)
        self._clock, self._clock_step = time.perf_counter(), pl_module.optimizer_step_index

    def on_save_checkpoint(
        self,
        trainer: lightning.Trainer,  # noqa: ARG002
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Add where the run stands."""
        assert isinstance(pl_module, DenseCLTraining)
        checkpoint["densecl_step"] = pl_module.step

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,  # noqa: ARG002
        batch: Any,
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """After each part of a batch; acts when the batch is complete."""
        assert isinstance(pl_module, DenseCLTraining)
        if batch.skipped:
            self._note(trainer, pl_module, batch.skipped)
        if pl_module.step % self._plan.accumulate:
            return
        step, train = pl_module.optimizer_step_index, pl_module.config.train
        epoch_over = step % self._plan.epoch_steps == 0
        looks = step % train.log_every == 0 or epoch_over or step == self._last
        if looks:
            self._log(trainer, pl_module, step)
        if epoch_over:
            means = {f"epoch/{name}": value for name, value in pl_module.epoch_averages.read().items()}
            self._write(trainer, means, step)
        # All processes must agree to stop, which costs a message: asked for when there is one waited for anyway.
        stopped = looks and trainer.strategy.reduce_boolean_decision(self._stop.is_set(), all=False)
        if step % train.checkpoint_every == 0 or step == self._last or stopped:
            if not is_finite(pl_module):
                self._not_finite(pl_module, "A parameter")
            save_checkpoint(trainer, self._run)
        if stopped:
            trainer.should_stop = True

    def _log(self, trainer: lightning.Trainer, module: DenseCLTraining, step: int) -> None:
        means = module.averages.read()
        if not all(math.isfinite(value) for value in means.values()):
            self._not_finite(module, "The loss")
        for name, queue in (("global", module.model.global_queue), ("dense", module.model.dense_queue)):
            if queue is not None:
                means |= {f"queue_{name}_{key}": float(value) for key, value in queue_health(queue).items()}
        now = time.perf_counter()
        steps_per_second = (step - self._clock_step) / max(now - self._clock, 1e-9)
        rate = steps_per_second * module.config.optim.batch_size
        self._clock, self._clock_step = now, step
        means |= {"lr": module.learning_rate, "lambda": module.config.weight(step), "images_per_second": rate}
        self._write(trainer, means, step)
        if trainer.is_global_zero:
            epoch = (step - 1) // self._plan.epoch_steps + 1
            epochs = module.config.optim.epochs
            self._report(
                Progress(step, self._plan.total_steps, epoch, epochs, rate, steps_per_second, means, len(self._bad))
            )

    def _write(self, trainer: lightning.Trainer, values: dict[str, float], step: int) -> None:
        if trainer.is_global_zero:
            append_curves(self._run, {"step": step, **values})
        for logger in trainer.loggers:
            logger.log_metrics(values, step)

    def _note(self, trainer: lightning.Trainer, module: DenseCLTraining, skipped: Sequence[Skipped]) -> None:
        fresh = [one for one in skipped if one.index not in self._bad]
        self._bad |= {one.index for one in fresh}
        append_skipped(self._run, trainer.global_rank, fresh, self._names)
        good = len(self._refs) - len(self._bad)
        if good < module.config.optim.batch_size:
            raise UserError(
                f"Only {good} of {len(self._refs)} photographs can be used, fewer than one batch of "
                f"{module.config.optim.batch_size}: see {self._run / 'skipped.jsonl'}, and repair or replace them."
            )

    def _not_finite(self, module: DenseCLTraining, what: str) -> None:
        good = newest_checkpoint(self._run)
        resume = f"the last good checkpoint is {good}" if good else "no checkpoint had been written"
        raise UserError(
            f"{what} became NaN or infinite by step {module.optimizer_step_index}; {resume}: start again from it with "
            "a lower --set optim.lr, or with --set train.precision=fp32."
        )


def _initial_state(config: DenseCLConfig) -> dict[str, torch.Tensor] | None:
    if config.model.init is None:
        return None
    return load_backbone(config.model.init, arch=config.model.arch).module.state_dict()


def _explain(error: Exception, config: DenseCLConfig) -> UserError | None:
    if not out_of_memory(error):
        return None
    parts = config.optim.accumulate * 2
    return UserError(
        f"There is not enough memory for {config.optim.batch_size // config.optim.accumulate} images at once: set "
        f"optim.accumulate={parts} (the same batch of {config.optim.batch_size} in {parts} parts), a smaller "
        "--batch-size, or a smaller augment.size."
    )
