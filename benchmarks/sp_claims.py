"""The claims of Saliency Prompt's Tables 3, 4, 5 and 7 as differences of paired runs, with intervals and a picture."""

import statistics
from pathlib import Path
from typing import Any

from intervals import half_width
from matplotlib.figure import Figure

CLAIMS = (  # (better, worse) according to the paper
    ("none, no kernel loss", "no pre-training"),
    ("cosine", "no pre-training"),
    ("cosine, before head", "no pre-training"),
    ("none, good masks", "no pre-training"),
    ("none", "random"),
    ("sequential", "none"),
    ("cosine", "none"),
    ("cosine", "sequential"),
    ("cosine, before head", "cosine"),  # the paper does not compare them, nor the next three
    ("cosine, as long as the query", "cosine"),
    ("cosine, half of the queries", "cosine"),
    ("cosine, half of the queries", "none"),
    ("none", "none, no kernel loss"),
    ("cosine", "cosine, no kernel loss"),
    ("cosine, random masks", "none, random masks"),
    ("cosine, good masks", "none, good masks"),
    ("none", "none, random masks"),
    ("none, good masks", "none"),
)
METRICS = ("AP", "AP50", "AP_agnostic", "AR_agnostic")


def interval(values: list[float]) -> dict[str, float | None]:
    """Mean, and half the width of the 95 % interval of the mean; None of one value."""
    half = half_width(values)
    plus_minus = None if half is None else round(half, 3)
    return {"mean": round(statistics.mean(values), 3), "plus_minus": plus_minus, "pairs": len(values)}


def compare(units: dict[str, dict[str, Any]], metric: str) -> dict[str, dict[str, float | None]]:
    """The paper's claims as differences of seeds that both arms have."""
    found = {}
    for better, worse in CLAIMS:
        seeds = sorted(set(units.get(better, ())) & set(units.get(worse, ())))
        if seeds:
            pairs = [units[better][s][metric] - units[worse][s][metric] for s in seeds]
            found[f"{better} > {worse}"] = interval(pairs)
    return found


def summarise(units: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Each arm's mean, and the claims, in every metric."""
    arms = {
        name: {metric: interval([one[metric] for one in seeds.values()]) for metric in METRICS}
        for name, seeds in units.items()
    }
    return {"arms": arms, "claims": {metric: compare(units, metric) for metric in METRICS}}


def draw_claims(hosts: dict[str, Any], metric: str, path: Path) -> None:
    """Draw the claims as differences with their intervals, if they have one; right of zero is as claimed."""
    names = [f"{better} > {worse}" for better, worse in CLAIMS]
    figure = Figure(figsize=(9, 7), layout="constrained")
    axes = figure.subplots()
    for place, (host, found) in enumerate(hosts.items()):
        claims = found["claims"][metric]
        rows = [row for row, name in enumerate(names) if name in claims]
        if not rows:
            continue
        means = [claims[names[row]]["mean"] for row in rows]
        halves = [claims[names[row]]["plus_minus"] or 0.0 for row in rows]
        heights = [row + 0.22 * (place - 1) for row in rows]
        axes.errorbar(means, heights, xerr=halves, fmt="o", markersize=4, capsize=2, label=host)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel(f"{metric.replace('_', ', ')}: difference of paired seeds, 95 % interval")
    axes.legend()
    figure.savefig(path, dpi=110)
