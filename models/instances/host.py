"""The seam between Saliency Prompt and a query-based model.

A host gives its initial queries, takes queries that were changed, and returns what every stage made of them. K-Net,
QueryInst and Mask2Former differ behind it and nowhere else.

Shape legend: B images, N queries, C channels, K classes, H W pixels of the padded batch, h w cells of a mask.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from ..backbones.base import Backbone


@dataclass(frozen=True, slots=True)
class Initial:
    """Before the first stage.

    queries [B, N, C] as the first stage takes them; learned [N, C], the part of them that is a parameter alone;
    masks [B, N, h, w] logits; semantic [B, K, h, w] logits or None; memory: the features that the stages look at.
    """

    queries: Tensor
    learned: Tensor
    masks: Tensor
    semantic: Tensor | None
    memory: Tensor


@dataclass(frozen=True, slots=True)
class Stage:
    """After a stage: queries [B, N, C], classes [B, N, K] logits, masks [B, N, h, w] logits."""

    queries: Tensor
    classes: Tensor
    masks: Tensor


class QueryHost(nn.Module):
    """A query-based instance segmentation model.

    `matches_before` says whether a stage's targets are matched on the masks before it (K-Net) or on its own.
    """

    backbone: Backbone
    num_queries: int
    channels: int
    num_classes: int
    prompt_stride: int
    matches_before: bool

    def features(self, images_B3HW: Tensor) -> dict[str, Tensor]:
        """Pyramid features `p2` .. `p5` of normalised, padded images."""
        raise NotImplementedError

    def prompt_map(self, pyramid: dict[str, Tensor]) -> Tensor:
        """The map that prompts are pooled from: [B, C, ., .] at `prompt_stride`."""
        return pyramid["p5"]

    def start(self, pyramid: dict[str, Tensor], shift_BNC: Tensor | None = None) -> Initial:
        """Initial queries and their masks.

        `shift_BNC` is added to the learned queries before the first masks are made (injection before the head).
        """
        raise NotImplementedError

    def refine(self, initial: Initial, queries_BNC: Tensor) -> list[Stage]:
        """All stages on these queries."""
        raise NotImplementedError

    def class_layers(self) -> list[str]:
        """Prefixes of parameters whose shape depends on the number of classes."""
        raise NotImplementedError
