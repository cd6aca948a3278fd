"""One training step of DenseCL as lightning wants it; every random number comes from (seed, step)."""

import math
from collections.abc import Mapping
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor

from ...models.backbones.registry import build_backbone
from ...models.densecl.model import DenseCL
from ...models.densecl.shuffle import process_count
from ...schemas.densecl import DenseCLConfig
from .augment import render_views
from .diagnostics import Averages
from .photos import Squares
from .views import UNIFORMS, draw_views, match_accuracy, step_generator, to_device, true_matches

_VIEWS, _SHUFFLE, _MATCH = 1, 2, 3  # purposes of the generator


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


class DenseCLTraining(lightning.LightningModule):
    """The model and its optimizer. `step` counts parts of batches (micro steps) from the start of the run.

    `total_steps` is where the learning rate reaches zero. `averages` and `epoch_averages` collect losses and the
    accuracy of matches for whoever reports them.
    """

    def __init__(self, model: DenseCL, config: DenseCLConfig, total_steps: int, step: int = 0) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.total_steps = total_steps
        self.step = step
        self.averages, self.epoch_averages = Averages(), Averages()
        backbone: Any = model.query.backbone
        self._mean, self._std = backbone.mean, backbone.std

    @property
    def optimizer_step_index(self) -> int:
        """Optimizer steps done."""
        return self.step // self.config.optim.accumulate

    @property
    def learning_rate(self) -> float:
        """Cosine from the initial rate to zero, without restarts."""
        done = min(1.0, self.step / self.total_steps)
        return self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD over the query encoder; weight decay on all of it."""
        optim = self.config.optim
        return torch.optim.SGD(
            self.model.query.parameters(),
            lr=self.learning_rate,
            momentum=optim.momentum,
            weight_decay=optim.weight_decay,
        )

    def transfer_batch_to_device(self, batch: Squares, device: torch.device, dataloader_idx: int) -> Squares:  # noqa: ARG002
        """The pixels go to the device, the rest is needed on the host."""
        return batch.to(device)

    def training_step(self, batch: Squares, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Two views, the key encoder's update (once per optimizer step), the losses."""
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
            for group in self.optimizers().param_groups:  # type: ignore[union-attr]
                group["lr"] = self.learning_rate
        order = step_generator(seed, step, _SHUFFLE).permutation(count * world)
        out = self.model(
            queries,
            keys,
            weight=config.weight(self.optimizer_step_index),
            order_G=to_device(order, self.device),
            random_nP=self._random_match(step, count, world, mine),
        )
        values = {"loss": out.loss, "loss_global": out.global_loss}
        if out.match is not None and out.dense_loss is not None:
            truth = true_matches(views[0], views[1], round(out.match.shape[1] ** 0.5))
            accuracy = match_accuracy(out.match, to_device(truth, self.device))
            values |= {"loss_dense": out.dense_loss, "match_accuracy": accuracy.nan_to_num_()}
        self.averages.add(**values)
        self.epoch_averages.add(**values)
        self.step += 1
        loss: Tensor = out.loss
        return loss

    def _random_match(self, step: int, count: int, world: int, mine: slice) -> Tensor | None:
        if self.config.model.matching != "random" or not self.config.dense:
            return None
        side = self.config.model.grid or -(-self.config.augment.size // 32)
        drawn = step_generator(self.config.train.seed, step, _MATCH).random((count * world, side * side))[mine]
        return to_device(drawn.astype(np.float32), self.device)
