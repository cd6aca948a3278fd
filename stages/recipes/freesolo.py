"""FreeSOLO: a class-agnostic SOLOv2 on coarse masks (thesis, Deep Object Segmentation, section 6.2.3)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from ...models.backbones.base import Backbone
from ...models.detector import Targets
from ...models.solo.free import FreeSolo
from ...models.weak import shorten
from ...schemas.training.freesolo import FreeSoloTraining
from ..instances.augment import Samples
from ..instances.samples import Batch, Sample
from ..instances.training import InstanceRecipe
from ..instances.views import Views, collate_views
from ..training.recipe import average_count


class FreeSoloRecipe(InstanceRecipe):
    """The model's weak losses on two views of each image.

    The embedding learns the stored vectors named `vectors`, or, given `teacher`, the unit mean of that frozen
    backbone's C5 under each mask; both shortened to the embedding's length. With neither it learns nothing.
    """

    host: FreeSolo
    config: FreeSoloTraining

    def __init__(
        self,
        host: FreeSolo,
        config: FreeSoloTraining,
        data: Samples,
        *,
        vectors: str | None = None,
        teacher: Backbone | None = None,
    ) -> None:
        super().__init__(host, config, data)
        self._vectors = vectors
        # in a tuple, so that it is no part of what is trained, saved or moved
        self._teacher: tuple[Backbone, ...] = () if teacher is None else (teacher.eval().requires_grad_(False),)

    def samples(self) -> Dataset[Sample]:
        """See `InstanceRecipe`."""
        return Views(super().samples(), self.config.views, self.loop.seed)

    def collate(self) -> Callable[[Sequence[Sample]], Batch]:
        """See `InstanceRecipe`."""
        return partial(
            collate_views, multiple=self.host.multiple, views=self.config.views, vectors=self._vectors or "seed"
        )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """See `Recipe`."""
        weak = self.config.weak
        comparable = [
            (max(0, height - int(weak.bottom * height / stored)), width)
            for (height, width), (stored, _) in zip(batch.resized, batch.stored, strict=True)
        ]
        return self.host.losses(
            self.normalise(batch.images),
            batch.resized,
            self.targets(batch),
            average_count,
            comparable=comparable,
            warmth=min(1.0, self.done / weak.warmup_steps) if weak.warmup_steps else 1.0,
        )

    def targets(self, batch: Batch) -> list[Targets]:
        """Objects with the vectors that their embedding learns."""
        length = self.host.options.embedding
        if not (length and self.config.weak.embedding) or not (self._teacher or self._vectors):
            return batch.targets()
        vectors = self._pooled(batch) if self._teacher else batch.seeds
        return [
            replace(target, vectors=shorten(one.float(), length) if one.shape[1] else None)
            for target, one in zip(batch.targets(), vectors, strict=True)
        ]

    @torch.no_grad()
    def _pooled(self, batch: Batch) -> list[Tensor]:
        """Unit means of the teacher's C5 under each mask, [M, C]."""
        teacher = self._teacher[0].to(batch.images.device)
        features = teacher(self.normalise(batch.images), "c5")["c5"].float()
        return [pool_under(map_Chw, masks) for map_Chw, masks in zip(features, batch.masks, strict=True)]


def pool_under(map_Chw: Tensor, masks_MHW: Tensor) -> Tensor:
    """Unit-length means of a map under masks, each cell counting by its share in the mask: [M, C]."""
    if not len(masks_MHW):
        return map_Chw.new_zeros((0, len(map_Chw)))
    share_Mhw = F.adaptive_avg_pool2d(masks_MHW[:, None].float(), (map_Chw.shape[1], map_Chw.shape[2]))[:, 0]
    return F.normalize(share_Mhw.flatten(1) @ map_Chw.flatten(1).T, dim=1)
