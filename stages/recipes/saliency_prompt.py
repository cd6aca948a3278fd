"""Saliency Prompt pre-training: a query-based model on pseudo-labels, whose queries are prompted (Eq. 5-9)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...models.queries.host import AnyHost
from ...models.queries.kernel_loss import kernel_loss
from ...models.queries.prompts import ASSIGNERS, pad_boxes, pool_prompts, prompt_shift
from ...schemas.training.sections import PromptedConfig
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
        initial, queries_BNC = self._start(batch)
        refined = self.host.refine(initial, queries_BNC)
        losses, pairs = self.host.criterion(initial, refined, batch.targets(), average_count)
        if self.projection is not None:
            seeds_MC = self.projection(torch.cat(batch.seeds))
            if len(seeds_MC) > 1:
                self.averages.add(seed_spread=F.normalize(seeds_MC.detach().float(), dim=1).std(0).mean())
            counts = [len(labels) for labels in batch.labels]
            weight = self.config.prompt.kernel_weight
            losses |= kernel_loss(refined, pairs, seeds_MC, counts, weight=weight, average=average_count)
        return losses

    def _start(self, batch: Batch) -> tuple[object, Tensor]:
        """What the host's stages start from, and their queries with prompts."""
        prompt, host = self.config.prompt, self.host
        pyramid = host.features(self.normalise(batch.images))
        if prompt.assigner == "none":
            initial = host.start(pyramid, batch.resized)
            return initial, initial.queries
        boxes_BL4, valid_BL = pad_boxes(batch.boxes)
        prompts_BLC = pool_prompts(host.prompt_map(pyramid), boxes_BL4, host.prompt_stride)
        assign = ASSIGNERS[prompt.assigner]
        learned_BNC = host.learned.expand(len(batch.images), -1, -1)
        if prompt.inject_at == "before_head":
            shift_BNC = prompt_shift(assign, learned_BNC, prompts_BLC, valid_BL, prompt.dropout)
            initial = host.start(pyramid, batch.resized, shift_BNC.to(learned_BNC.dtype))
            return initial, initial.queries
        initial = host.start(pyramid, batch.resized)
        against_BNC = learned_BNC if prompt.match_on == "initial" else initial.queries
        shift_BNC = prompt_shift(assign, against_BNC, prompts_BLC.to(against_BNC.dtype), valid_BL, prompt.dropout)
        return initial, initial.queries + shift_BNC
