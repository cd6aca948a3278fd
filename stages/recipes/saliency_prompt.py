"""Saliency Prompt pre-training: a query-based model on pseudo-labels, whose queries are prompted (Eq. 5-9)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...models.detector import Targets
from ...models.queries.host import AnyHost, Initial
from ...models.queries.kernel_loss import kernel_loss
from ...models.queries.prompting import Prompting, start_with_prompts
from ...schemas.training.sections import PromptConfig, PromptedConfig
from ..instances.augment import Samples
from ..instances.samples import Batch
from ..instances.training import InstanceRecipe
from ..training.recipe import average_count


class SaliencyPrompt(InstanceRecipe):
    """The host's losses, prompts on its queries, and the kernel loss.

    `seed_channels` is the length of the stored vectors, 0 without a kernel loss; its projection is the only parameter
    that is not the host's, and is gone after pre-training.
    """

    host: AnyHost
    config: PromptedConfig

    def __init__(self, host: AnyHost, config: PromptedConfig, data: Samples, *, seed_channels: int = 0) -> None:
        super().__init__(host, config, data)
        self.projection: nn.Linear | None = None
        if seed_channels and config.prompt.kernel_weight:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config.trainer.seed)
                self.projection = nn.Linear(seed_channels, host.channels, bias=config.prompt.target == "learned")
                if config.prompt.target == "fixed":
                    nn.init.orthogonal_(self.projection.weight)
                    self.projection.requires_grad_(False)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """See `Recipe`."""
        targets = batch.targets()
        initial, queries_BNC = self._start(batch, targets)
        refined = self.host.refine(initial, queries_BNC)
        losses, pairs = self.host.criterion(initial, refined, targets, average_count)
        if self.projection is not None:
            seeds_MC = self.projection(torch.cat(batch.seeds))
            if len(seeds_MC) > 1:
                self.averages.add(seed_spread=F.normalize(seeds_MC.detach().float(), dim=1).std(0).mean())
            counts = [len(labels) for labels in batch.labels]
            weight = self.config.prompt.kernel_weight
            losses |= kernel_loss(refined, pairs, seeds_MC, counts, weight=weight, average=average_count)
        return losses

    def _start(self, batch: Batch, targets: list[Targets]) -> tuple[Initial, Tensor]:
        """What the host's stages start from, and their queries with prompts."""
        prompt, host = self.config.prompt, self.host
        pyramid = host.features(self.normalise(batch.images))
        if prompt.assigner == "none":
            initial: Initial = host.start(pyramid, batch.resized)
            return initial, initial.queries
        found = start_with_prompts(host, pyramid, batch.resized, targets, prompting(prompt))
        self.averages.add(prompt_ratio=found.ratio)
        if (empty := host.empty_masks(found.initial)) is not None:
            self.averages.add(empty_masks=empty)
        return found.initial, found.queries


def prompting(prompt: PromptConfig) -> Prompting:
    """The settings as the models know them."""
    return Prompting(
        prompt.assigner,
        prompt.inject_at,
        prompt.match_on,
        dropout=prompt.dropout,
        scale=prompt.scale,
        levels=prompt.levels,
        pooling=prompt.pooling,
        cells=prompt.cells,
    )
