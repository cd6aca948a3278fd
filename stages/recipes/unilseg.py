"""Training UniLSeg: pairs of masks and texts from several sources, in one stage or two (UniLSeg, section 4.1).

The first stage draws from pairs that models made alone, at a rate of its own; the second from all. An epoch is as many
steps as all pairs fill.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ...models.unilseg.losses import Weights, referring_losses
from ...models.unilseg.model import MEAN, STD, UniLSeg
from ...models.unilseg.tokenizer import Tokenizer
from ...schemas.errors import UserError
from ...schemas.training.unilseg import UniLSegTraining
from ..referring.pairs import PairSource
from ..referring.samples import MixedOrder, ReferringBatch, ReferringSamples, Shares, collate_pairs
from ..training.recipe import Loop, ParamGroup, Part, Recipe, Schedule, average_count
from ..training.schedules import cosine, poly, steps, warmup


class UniLSegRecipe(Recipe[ReferringBatch]):
    """The model on sources of pairs."""

    def __init__(
        self, host: UniLSeg, config: UniLSegTraining, sources: Sequence[PairSource], tokenizer: Tokenizer
    ) -> None:
        trainer, batch = config.trainer, config.data.batch_size
        epoch_steps = max(1, sum(map(len, sources)) // batch)
        self._first = tuple(source.pseudo for source in sources)
        if trainer.pretrain_epochs and not any(self._first):
            raise UserError(
                "The first stage trains on PAIRS that models made: give some, or trainer.pretrain_epochs=0."
            )
        plan = Schedule(batch, trainer.accumulate, epoch_steps, trainer.pretrain_epochs + trainer.max_epochs)
        super().__init__(
            plan,
            Loop(
                trainer.seed,
                trainer.precision,
                trainer.log_every,
                trainer.checkpoint_every,
                trainer.evaluate_every,
                trainer.clip,
                trainer.ema,
            ),
        )
        self.host, self.config = host, config
        self._sources, self._tokenizer = list(sources), tokenizer
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    @property
    def switch(self) -> int:
        """The optimizer step at which the second stage begins."""
        return self.config.trainer.pretrain_epochs * self.schedule.epoch_steps

    def loader(self, part: Part) -> DataLoader[ReferringBatch]:
        """See `Recipe`."""
        plan, data = self.schedule, self.config.data
        counts = tuple(map(len, self._sources))
        shares = Shares(counts, data.balance, self._first, self.switch * plan.accumulate)
        order = MixedOrder(shares, plan.micro_batch, self.loop.seed, part.start, part.stop, part.rank, part.world)
        length = self.config.model.text.length
        return DataLoader(
            ReferringSamples(self._sources, self._tokenizer, length, data, self.loop.seed),
            batch_sampler=order,
            num_workers=data.workers,
            collate_fn=collate_pairs,
            pin_memory=part.on_gpu,
            generator=torch.Generator(),
            multiprocessing_context="fork" if data.workers else None,
        )

    def losses(self, batch: ReferringBatch) -> dict[str, Tensor]:
        """See `Recipe`."""
        logits_TBhw = self.host(normalise(batch.images, self.mean, self.std), batch.tokens)
        loss = self.config.loss
        weights = Weights(loss.cross_entropy, loss.dice)
        return referring_losses(logits_TBhw, batch.masks, batch.weights, weights, average_count)

    def groups(self) -> list[ParamGroup]:
        """The image encoder has a rate of its own; the text encoder has not."""
        trainer = self.config.trainer
        visual = list(self.host.visual.parameters())
        mine = set(map(id, visual))
        rest = [p for p in self.host.parameters() if id(p) not in mine]
        decay = trainer.weight_decay
        return [
            {"params": rest, "factor": 1.0, "weight_decay": decay},
            {"params": visual, "factor": trainer.backbone_lr, "weight_decay": decay},
        ]

    def optimizer(self, groups: list[ParamGroup]) -> torch.optim.Optimizer:
        """AdamW (Adam, without decay) or SGD."""
        if self.config.trainer.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=self.learning_rate, momentum=self.config.trainer.momentum)
        return torch.optim.AdamW(groups, lr=self.learning_rate)

    def rate(self, step: int) -> float:
        """The first stage's rate, then the second's schedule."""
        trainer = self.config.trainer
        scale = self.config.data.batch_size / trainer.lr_batch
        if step < self.switch:
            return trainer.pretrain_lr * scale * warmup(step, trainer.warmup_steps)
        done = (step - self.switch) / max(1, self.schedule.total_steps - self.switch)
        falls = {
            "steps": lambda: steps(done, trainer.decay_at),
            "cosine": lambda: cosine(done),
            "poly": lambda: poly(done),
            "constant": lambda: 1.0,
        }
        return trainer.lr * scale * falls[trainer.schedule]() * warmup(step, trainer.warmup_steps)

    def noted(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Both losses."""
        return {f"loss_{name}": value.detach() for name, value in losses.items()}

    def averaged(self) -> nn.Module:
        """The model."""
        return self.host

    def memory_advice(self) -> str:
        """See `Recipe`."""
        parts = self.schedule.accumulate * 2
        return f"set trainer.accumulate={parts}, a smaller data.batch_size or a smaller data.side"

    def settings(self) -> tuple[str, str]:
        """See `Recipe`."""
        return "trainer", "trainer"


def normalise(images_B3SS: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """From uint8 RGB to the image encoder's input."""
    return (images_B3SS.float() - mean) / std
