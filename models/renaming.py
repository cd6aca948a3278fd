"""Tensors of others under our names, by an explicit table of patterns."""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

# (pattern of a whole name, our name). Our name may end in #0, #1, ...: these parts lie in one tensor, in a row.
# None for what has no counterpart here and needs none.
Rules = Sequence[tuple[str, str | None]]


def rename(state: Mapping[str, Tensor], rules: Rules) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors under our names, and the names that no rule knows. The first rule that fits a name decides."""
    compiled = [(re.compile(pattern), ours) for pattern, ours in rules]
    found: dict[str, Tensor] = {}
    parts: dict[str, dict[int, Tensor]] = {}
    unknown = []
    for name, tensor in state.items():
        matches = ((match, ours) for pattern, ours in compiled if (match := pattern.fullmatch(name)))
        match, ours = next(matches, (None, None))
        if match is None:
            unknown.append(name)
        elif ours is not None:
            target, _, part = match.expand(ours).partition("#")
            if part:
                parts.setdefault(target, {})[int(part)] = tensor
            else:
                found[target] = tensor
    for target, pieces in parts.items():
        found[target] = torch.cat([pieces[i] for i in sorted(pieces)])
    return found, unknown
