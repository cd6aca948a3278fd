"""The seam between Saliency Prompt and a query-based model.

A host gives its initial queries, takes queries that were changed, and returns what every stage made of them. K-Net,
QueryInst and Mask2Former differ behind it and nowhere else.

Shape legend: B images, N queries, C channels, K classes, H W pixels of the padded batch, h w cells of a mask.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from ...schemas.errors import UserError
from ..detector import Average, Detector, Found, Limits, Size, Targets

Pairs = tuple[Tensor, Tensor]  # of queries and objects of an image, each int64 [P]
Pyramid = dict[str, Tensor]  # maps [B, C, ., .] by name


@dataclass(frozen=True, slots=True, eq=False)
class Initial:
    """Before the first stage: queries [B, N, C] as it takes them. A host adds what else its stages start from."""

    queries: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Refined:
    """After a stage: queries [B, N, C], and logits of their classes [B, N, K], or more where a host has others."""

    queries: Tensor
    classes: Tensor


I = TypeVar("I", bound=Initial)
R = TypeVar("R", bound=Refined)


class QueryHost(Detector, Generic[I, R]):
    """A query-based instance segmentation model. Prompts come in between `features` and `refine`."""

    num_queries: int
    channels: int
    prompt_stride: int
    prompt_levels: Mapping[str, int]  # stride of every map that prompts of several sizes can be pooled from

    @property
    def most(self) -> int:  # type: ignore[override]
        """One for each query."""
        return self.num_queries

    @property
    def learned(self) -> Tensor:
        """The part of the queries that is a parameter: [N, C]."""
        raise NotImplementedError

    def features(self, images_B3HW: Tensor) -> Pyramid:
        """Maps of normalised, padded images that the queries look at."""
        raise NotImplementedError

    def prompt_map(self, pyramid: Pyramid) -> Tensor:
        """The map that prompts are pooled from: [B, C, ., .] at `prompt_stride`."""
        return pyramid["p5"]

    def start(self, pyramid: Pyramid, sizes: Sequence[Size], shift_BNC: Tensor | None = None) -> I:
        """Initial queries, and what is made of them before the first stage.

        `shift_BNC` is added to the learned queries first (injection before the head).
        """
        raise NotImplementedError

    def refine(self, initial: I, queries_BNC: Tensor) -> list[R]:
        """All stages on these queries, which may be others than the initial ones (injection after the head)."""
        raise NotImplementedError

    def criterion(
        self, initial: I, refined: Sequence[R], targets: Sequence[Targets], average: Average
    ) -> tuple[dict[str, Tensor], list[list[Pairs]]]:
        """Weighted losses by name, and of every stage the pairs in each image."""
        raise NotImplementedError

    def instances(self, initial: I, last: R, limits: Limits) -> list[Found]:
        """What the last stage says of each image."""
        raise NotImplementedError

    def query_maps(self, initial: I, last: R) -> Tensor:
        """Probabilities of every query's mask over the padded images: [B, N, h, w]."""
        raise NotImplementedError

    def empty_masks(self, initial: I) -> Tensor | None:  # noqa: ARG002
        """The share of queries whose first mask holds nothing; None for a host whose queries gather nothing by it."""
        return None

    def losses(
        self, images_B3HW: Tensor, sizes: Sequence[Size], targets: Sequence[Targets], average: Average
    ) -> dict[str, Tensor]:
        """See `Detector`."""
        initial = self.start(self.features(images_B3HW), sizes)
        losses, _ = self.criterion(initial, self.refine(initial, initial.queries), targets, average)
        return losses

    def find(self, images_B3HW: Tensor, sizes: Sequence[Size], limits: Limits) -> list[Found]:
        """See `Detector`."""
        initial = self.start(self.features(images_B3HW), sizes)
        return self.instances(initial, self.refine(initial, initial.queries)[-1], limits)

    def look(self, images_B3HW: Tensor, sizes: Sequence[Size]) -> Tensor:
        """`query_maps` of images."""
        initial = self.start(self.features(images_B3HW), sizes)
        return self.query_maps(initial, self.refine(initial, initial.queries)[-1])


def refuse_boxes(targets: Sequence[Targets]) -> None:
    """Raise UserError where an object has no mask to learn from."""
    if any(target.has_mask is not None and not target.has_mask.all() for target in targets):
        raise UserError(
            "The annotations have objects with a box alone, and this model learns from masks: give each a "
            "segmentation, or train queryinst, maskrcnn or contrastmask."
        )


AnyHost = QueryHost[Any, Any]


def best_labels(scores_NK: Tensor, limits: Limits) -> tuple[Tensor, Tensor, Tensor]:
    """The best pairs of query and class, best first: scores, queries and labels, each [n].

    One query may be found under several labels.
    """
    best = scores_NK.flatten().topk(min(limits.most, scores_NK.numel()))
    keep = best.values >= limits.min_score
    places = best.indices[keep]
    return best.values[keep], places // scores_NK.shape[1], places % scores_NK.shape[1]


@torch.no_grad()
def empty_share(masks_BNhw: Tensor) -> Tensor:
    """The share of masks (logits) that hold no cell: such queries start from nothing that they saw."""
    return (masks_BNhw <= 0).flatten(2).all(2).float().mean()
