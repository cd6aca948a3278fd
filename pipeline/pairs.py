"""Text scores of a data set of pairs, in numbers."""

from dataclasses import dataclass

import numpy as np

from ..schemas.errors import UserError
from ..stages.referring.pseudo import bin_score, dropped_bins, passes
from ..store.dataset import Dataset


@dataclass(frozen=True, slots=True)
class SourceScores:
    """Of one source: its pairs, and what a quantile leaves out. `lowest_text` is of the worst pair that stays."""

    source: str
    pairs: int
    unscored: int
    median: float
    threshold: float
    dropped: int
    lowest_text: str


def score_pairs(url: str, drop_lowest: float) -> list[SourceScores]:
    """By source. Raises UserError for a data set without texts."""
    dataset = Dataset.open(url)
    if "texts" not in dataset.card.mask_columns:
        raise UserError(f"{url} has masks without texts: make pairs with `annotate`.")
    pairs: dict[str, list[tuple[float, str]]] = {}
    for commit in dataset.checked_commits():
        for row in dataset.read_masks(commit).select(["source", "texts", "text_scores"]).to_pylist():
            pairs.setdefault(row["source"], []).extend(zip(row["text_scores"], row["texts"], strict=True))
    dropped = dropped_bins(dataset, drop_lowest)
    found = []
    for source, mine in sorted(pairs.items()):
        bins = dropped.get(source, 0)
        known = np.array([score for score, _ in mine if np.isfinite(score)])
        kept = sorted((score, text) for score, text in mine if np.isfinite(score) and passes(score, bins))
        found.append(
            SourceScores(
                source,
                len(mine),
                len(mine) - len(known),
                float(np.median(known)) if len(known) else float("nan"),
                bin_score(bins),
                len(known) - len(kept),
                kept[0][1] if kept else "",
            )
        )
    return found
