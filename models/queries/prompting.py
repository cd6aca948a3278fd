"""A host's start with prompts (Saliency Prompt, section 3.3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from ...schemas.errors import UserError
from ..detector import Size, Targets
from .host import AnyHost, Initial, Pyramid
from .prompts import (
    ASSIGNERS,
    Cells,
    box_levels,
    choose_levels,
    pad_boxes,
    pool_masked,
    pool_prompts,
    prompt_ratio,
    prompt_shift,
)


@dataclass(frozen=True, slots=True)
class Prompting:
    """How queries get their prompts; raises UserError for what contradicts itself.

    assigner: which one (Table 5). inject_at: into the learned queries before anything is made of them (the paper's
    text), or into what the first stage takes (its code). match_on: learned queries, or those the first stage takes.
    scale: prompts as they are, or as long as the query each is added to. dropout: share of queries without one.
    levels: the host's prompt map, or the map that fits the box. pooling: over the box, or under the mask.
    cells: of a box, see `pool_prompts`.
    """

    assigner: str = "cosine"
    inject_at: Literal["before_head", "after_head"] = "after_head"
    match_on: Literal["initial", "assembled"] = "initial"
    scale: Literal["none", "match"] = "none"
    dropout: float = 0.1
    levels: Literal["one", "multi"] = "one"
    pooling: Literal["box", "masked_mean"] = "box"
    cells: Cells = "touched"

    def __post_init__(self) -> None:
        if self.assigner not in ASSIGNERS:
            raise UserError(f"there is no assigner {self.assigner!r}: choose one of {', '.join(ASSIGNERS)}")
        if self.inject_at == "before_head" and self.match_on == "assembled":
            raise UserError(
                "assembled queries do not exist before the head: set prompt.match_on=initial or "
                "prompt.inject_at=after_head"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Prompted:
    """The host's start, queries [B, N, C] for its first stage, and how long prompts were against their queries."""

    initial: Any  # the host's own Initial
    queries: Tensor
    ratio: Tensor


def start_with_prompts(
    host: AnyHost, pyramid: Pyramid, sizes: Sequence[Size], targets: Sequence[Targets], how: Prompting
) -> Prompted:
    """Pool prompts from the targets' places, assign and add them. The head runs once."""
    prompts_BLC, valid_BL = pool_targets(host, pyramid, targets, how)
    assigner = ASSIGNERS[how.assigner]
    learned_BNC = host.learned.expand(len(targets), -1, -1)
    if how.inject_at == "before_head":
        match = learned_BNC if how.scale == "match" else None
        shift_BNC = prompt_shift(assigner, learned_BNC, prompts_BLC, valid_BL, how.dropout, match)
        initial: Initial = host.start(pyramid, sizes, shift_BNC.to(learned_BNC.dtype))
        return Prompted(initial, initial.queries, prompt_ratio(shift_BNC, learned_BNC))
    initial = host.start(pyramid, sizes)
    against_BNC = learned_BNC if how.match_on == "initial" else initial.queries
    match = initial.queries if how.scale == "match" else None
    shift_BNC = prompt_shift(assigner, against_BNC, prompts_BLC.to(against_BNC.dtype), valid_BL, how.dropout, match)
    return Prompted(initial, initial.queries + shift_BNC, prompt_ratio(shift_BNC, initial.queries))


def pool_targets(host: AnyHost, pyramid: Pyramid, targets: Sequence[Targets], how: Prompting) -> tuple[Tensor, Tensor]:
    """A prompt of every object [B, L, C], and which are real [B, L]."""
    boxes_BL4, valid_BL = pad_boxes([target.boxes for target in targets])

    def pool(map_BCHW: Tensor, stride: int) -> Tensor:
        if how.pooling == "masked_mean":
            return pool_masked(map_BCHW, [target.masks for target in targets], stride)
        return pool_prompts(map_BCHW, boxes_BL4, stride, how.cells)

    if how.levels == "one":
        return pool(host.prompt_map(pyramid), host.prompt_stride), valid_BL
    pooled = [pool(pyramid[name], stride) for name, stride in host.prompt_levels.items()]
    levels_BL = box_levels(boxes_BL4, list(host.prompt_levels.values()))
    return choose_levels(pooled, levels_BL), valid_BL
