"""One training step of a query-based model as lightning wants it; every random number comes from (seed, step)."""

from typing import Any

import lightning
import torch
from torch import Tensor, nn

from ...models.densecl.shuffle import process_count
from ...models.detector import Targets
from ...models.queries.host import AnyHost, Initial
from ...models.queries.kernel_loss import kernel_loss
from ...models.queries.prompting import Prompting, start_with_prompts
from ...schemas.instances import InstanceConfig
from ..densecl.diagnostics import Averages
from .samples import Batch

STEM = ("conv1", "bn1", "layer1")


class InstanceTraining(lightning.LightningModule):
    """The host, its optimizer, and in pre-training the prompts.

    `step` counts optimizer steps from the start of the run. `seed_channels` is the length of the stored vectors, 0
    without a kernel loss. `averages` collects losses for whoever reports them.
    """

    def __init__(
        self, host: AnyHost, config: InstanceConfig, total_steps: int, *, prompts: bool, seed_channels: int = 0
    ) -> None:
        super().__init__()
        self.host = host
        self.config = config
        self.total_steps = total_steps
        self.step = 0
        self.averages = Averages()
        self.assigner = config.prompt.assigner if prompts else "none"
        self.projection: nn.Linear | None = None
        if prompts and seed_channels and config.prompt.kernel_weight:
            self.projection = nn.Linear(seed_channels, host.channels, bias=config.prompt.target == "learned")
            if config.prompt.target == "fixed":
                nn.init.orthogonal_(self.projection.weight)
                self.projection.requires_grad_(False)
        freeze(host, config.model.freeze)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(host.backbone.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(host.backbone.std).view(1, 3, 1, 1), persistent=False)

    @property
    def learning_rate(self) -> float:
        """Linear warm-up from a thousandth, then a tenth after each of the configured shares of all steps."""
        trainer, done = self.config.trainer, self.step / self.total_steps
        rate = self.config.learning_rate * 0.1 ** sum(done >= share for share in trainer.steps)
        if self.step < trainer.warmup_steps:
            rate *= 0.001 + 0.999 * self.step / trainer.warmup_steps
        return rate

    def train(self, mode: bool = True) -> "InstanceTraining":
        """Norms of the backbone use running statistics always."""
        super().train(mode)
        self.host.backbone.eval()
        return self

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW; the backbone has a rate of its own."""
        trainer = self.config.trainer
        backbone = [p for p in self.host.backbone.parameters() if p.requires_grad]
        mine = {id(p) for p in self.host.backbone.parameters()}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in mine]
        groups = [{"params": rest, "factor": 1.0}]
        if backbone:
            groups.append({"params": backbone, "factor": trainer.backbone_lr})
        return torch.optim.AdamW(groups, lr=self.learning_rate, weight_decay=trainer.weight_decay)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:  # noqa: ARG002
        """All tensors of it."""
        return batch.to(device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Losses of one batch."""
        for group in self.optimizers().param_groups:  # type: ignore[union-attr]
            group["lr"] = self.learning_rate * group["factor"]
        devices = [] if self.device.type == "cpu" else [self.device]
        rank = torch.distributed.get_rank() if process_count() > 1 else 0
        with torch.random.fork_rng(devices=devices):  # assignment and dropout draw from torch's generator
            torch.manual_seed(hash((self.config.trainer.seed, self.step, rank)) % 2**63)
            losses = self.losses(batch)
        total: Tensor = torch.stack(list(losses.values())).sum()
        groups: dict[str, Tensor] = {"loss": total}
        for name, value in losses.items():
            kind = name.removeprefix("initial_").rstrip("_0123456789")
            groups[f"loss_{kind}"] = groups.get(f"loss_{kind}", torch.zeros_like(total)) + value.detach()
        self.averages.add(**groups)
        self.step += 1
        return total

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted losses by name."""
        initial, queries = self.start(batch)
        stages = self.host.refine(initial, queries)
        losses, pairs = self.host.criterion(initial, stages, batch_targets(batch), _average)
        if self.projection is not None:
            seeds = self.projection(torch.cat(batch.seeds))
            if len(seeds) > 1:
                spread = torch.nn.functional.normalize(seeds.detach().float(), dim=1).std(0).mean()
                self.averages.add(seed_spread=spread)
            counts, weight = [len(labels) for labels in batch.labels], self.config.prompt.kernel_weight
            losses |= kernel_loss(stages, pairs, seeds, counts, weight=weight, average=_average)
        return losses

    def start(self, batch: Batch) -> tuple[Initial, Tensor]:
        """Initial masks, and the queries of the first stage with their prompts."""
        pyramid = self.host.features(self.normalise(batch.images))
        if self.assigner == "none":
            initial: Initial = self.host.start(pyramid, batch.resized)
            return initial, initial.queries
        prompt = self.config.prompt
        how = Prompting(self.assigner, prompt.inject_at, prompt.match_on, dropout=prompt.dropout)
        found = start_with_prompts(self.host, pyramid, batch.resized, batch_targets(batch), how)
        self.averages.add(prompt_ratio=found.ratio)
        return found.initial, found.queries

    def normalise(self, images_B3HW: Tensor) -> Tensor:
        """uint8 RGB to the backbone's input."""
        normal: Tensor = (images_B3HW.float() - self.mean) / self.std
        return normal


def batch_targets(batch: Batch) -> list[Targets]:
    """What a detector is trained towards."""
    return [
        Targets(masks, labels, boxes, torch.ones(len(labels), device=masks.device))
        for masks, labels, boxes in zip(batch.masks, batch.labels, batch.boxes, strict=True)
    ]


def freeze(host: AnyHost, what: str) -> None:
    """Fix the backbone's first layers or all of it; its norms are fixed in any case."""
    for name, parameter in host.backbone.named_parameters():
        if what == "all" or (what == "stem" and name.startswith(STEM)):
            parameter.requires_grad_(False)
    for module in host.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)


def _average(count: Tensor) -> Tensor:
    """The mean of a count over all processes, but at least one in all of them."""
    world = process_count()
    if world > 1:
        count = count.clone()
        torch.distributed.all_reduce(count)
    return count.clamp_min(1) / world


def transfer(host: AnyHost, state: dict[str, Tensor], *, skip: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Take every tensor whose name and shape fit, but those of the prefixes `skip`: names taken, names left fresh."""
    mine = host.state_dict()
    fitting = {
        name: value
        for name, value in state.items()
        if name in mine and mine[name].shape == value.shape and not name.startswith(skip)
    }
    host.load_state_dict(fitting, strict=False)
    return sorted(fitting), sorted(set(mine) - set(fitting))


def host_state(state: dict[str, Any]) -> dict[str, Tensor]:
    """The host's tensors in the state dict of a checkpoint."""
    return {name.removeprefix("host."): value for name, value in state.items() if name.startswith("host.")}
