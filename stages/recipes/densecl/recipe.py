"""DenseCL and MoCo-v2 as a recipe; every random number comes from (seed, step)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ....models.backbones.registry import build_backbone
from ....models.densecl.model import DenseCL
from ....models.distributed import process_count
from ....schemas.errors import UserError
from ....schemas.records import ImageRef
from ....schemas.training.densecl import DenseCLConfig
from ...training.recipe import Loop, ParamGroup, Part, Recipe, Schedule
from ...training.schedules import cosine
from .augment import render_views
from .diagnostics import queue_health
from .photos import PhotoSquares, Squares, StepBatches, make_loader
from .views import UNIFORMS, draw_views, match_accuracy, step_generator, to_device, true_matches

_VIEWS, _SHUFFLE, _MATCH = 1, 2, 3  # purposes of the generator
_BN_PART = 32  # images whose statistics belong together, as on one of the papers' GPUs


def schedule(config: DenseCLConfig, count: int) -> Schedule:
    """The steps for so many photographs. Raises UserError if they don't fill one batch."""
    batch = config.optim.batch_size
    if count < batch:
        raise UserError(
            f"There are {count} usable photographs, fewer than one batch of {batch}: set --batch-size to at most "
            f"{count}, or give more photographs."
        )
    return Schedule(batch, config.optim.accumulate, count // batch, config.optim.epochs)


def bn_splits(config: DenseCLConfig, world: int) -> int:
    """Parts of a process's batch with statistics of their own; 0 in the configuration is decided here."""
    share = config.optim.batch_size // config.optim.accumulate // world
    splits = config.model.bn_splits or (max(1, share // _BN_PART) if world == 1 and share % _BN_PART == 0 else 1)
    if share % splits:
        raise UserError(
            f"A batch of {share} cannot be normalised in {splits} equal parts: set model.bn_splits to a divisor."
        )
    return splits


def build_model(config: DenseCLConfig, backbone_state: Mapping[str, Tensor] | None = None, splits: int = 1) -> DenseCL:
    """The untrained model, from the seed; the backbone starts from a state dict if one is given."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed % 2**63)
        backbone = build_backbone(config.model.arch)
        if backbone_state is not None:
            backbone.load_state_dict(backbone_state)
        return DenseCL(
            backbone,
            queue=config.model.queue,
            dense=config.dense,
            grid=config.model.grid,
            matching=config.model.matching,
            tau=config.model.tau,
            splits=splits,
            seed=config.train.seed,
        )


class DenseCLRecipe(Recipe[Squares]):
    """SGD on the query encoder, with cosine decay to zero; the key encoder follows once per optimizer step.

    `known_bad` are places in the list of photographs that an earlier call found to be bad.
    """

    def __init__(
        self, model: DenseCL, config: DenseCLConfig, refs: Sequence[ImageRef], known_bad: Sequence[int] = ()
    ) -> None:
        train = config.train
        loop = Loop(train.seed, train.precision, train.log_every, train.checkpoint_every)
        super().__init__(schedule(config, len(refs)), loop)
        self.model = model
        self.config = config
        self._refs, self._known_bad = refs, sorted(known_bad)
        backbone: Any = model.query.backbone
        self._mean, self._std = backbone.mean, backbone.std
        self.to(memory_format=torch.channels_last)

    def loader(self, part: Part) -> DataLoader[Squares]:
        """See `Recipe`."""
        config, plan = self.config, self.schedule
        photos = PhotoSquares(self._refs, config.photos, self._known_bad)
        batches = StepBatches(
            len(self._refs),
            plan.micro_batch,
            plan.epoch_steps * plan.accumulate,
            config.train.seed,
            part.start,
            part.stop,
            part.rank,
            part.world,
        )
        workers = config.photos.workers
        if workers < 0:
            workers = 8 if part.on_gpu else int(not photos.cached)
        return make_loader(photos, batches, workers, pin=part.on_gpu)

    def groups(self) -> list[ParamGroup]:
        """Weight decay on all of the query encoder."""
        parameters = list(self.model.query.parameters())
        return [{"params": parameters, "factor": 1.0, "weight_decay": self.config.optim.weight_decay}]

    def optimizer(self, groups: list[ParamGroup]) -> torch.optim.Optimizer:
        """See `Recipe`."""
        return torch.optim.SGD(groups, lr=self.learning_rate, momentum=self.config.optim.momentum)

    def rate(self, step: int) -> float:
        """See `Recipe`."""
        return self.config.learning_rate * cosine(step / self.schedule.total_steps)

    def losses(self, batch: Squares) -> dict[str, Tensor]:
        """Two views, the key encoder's update, the loss."""
        config, step, count = self.config, self.step, len(batch.aspect)
        world = process_count()
        rank = torch.distributed.get_rank() if world > 1 else 0
        mine = slice(rank * count, (rank + 1) * count)
        seed = config.train.seed
        uniform = step_generator(seed, step, _VIEWS).random((count * world, 2, UNIFORMS))[mine]
        views = [draw_views(uniform[:, i], batch.aspect, config.augment) for i in (0, 1)]
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            queries, keys = (
                render_views(batch.pixels, view, config.augment.size, self._mean, self._std) for view in views
            )
        if step % config.optim.accumulate == 0:
            self.model.update_key(config.model.key_momentum)
        order = step_generator(seed, step, _SHUFFLE).permutation(count * world)
        out = self.model(
            queries,
            keys,
            weight=config.weight(self.done),
            order_G=to_device(order, self.device),
            random_nP=self._random_match(step, count, world, mine),
        )
        self._noted = {"loss_global": out.global_loss}
        if out.match is not None and out.dense_loss is not None:
            truth = true_matches(views[0], views[1], round(out.match.shape[1] ** 0.5))
            accuracy = match_accuracy(out.match, to_device(truth, self.device))
            self._noted |= {"loss_dense": out.dense_loss, "match_accuracy": accuracy.nan_to_num_()}
        return {"loss": out.loss}

    def noted(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002
        """Both losses before they are weighted, and how many matches are right."""
        return self._noted

    def gauges(self) -> dict[str, float]:
        """The queues' health, and lambda."""
        found: dict[str, float] = {}
        for name, queue in (("global", self.model.global_queue), ("dense", self.model.dense_queue)):
            if queue is not None:
                found |= {f"queue_{name}_{key}": float(value) for key, value in queue_health(queue).items()}
        return {**found, "lambda": self.config.weight(self.done)}

    def averaged(self) -> nn.Module:
        """The query encoder."""
        return self.model.query

    def check_skipped(self, count: int) -> None:
        """A batch must be full of good photographs."""
        good, batch = len(self._refs) - count, self.schedule.batch
        if good < batch:
            raise UserError(
                f"Only {good} of {len(self._refs)} photographs can be used, fewer than one batch of {batch}: see "
                "skipped.jsonl in the run's folder, and repair or replace them."
            )

    def memory_advice(self) -> str:
        """See `Recipe`."""
        parts = self.schedule.accumulate * 2
        return (
            f"set optim.accumulate={parts} (the same batch of {self.schedule.batch} in {parts} parts), a smaller "
            "--batch-size, or a smaller augment.size"
        )

    def settings(self) -> tuple[str, str]:
        """See `Recipe`."""
        return "optim", "train"

    def _random_match(self, step: int, count: int, world: int, mine: slice) -> Tensor | None:
        if self.config.model.matching != "random" or not self.config.dense:
            return None
        side = self.config.model.grid or -(-self.config.augment.size // 32)
        drawn = step_generator(self.config.train.seed, step, _MATCH).random((count * world, side * side))[mine]
        return to_device(drawn.astype(np.float32), self.device)
