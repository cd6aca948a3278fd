"""Two data sets image by image: which masks both have, and which only one."""

from collections.abc import Sequence
from typing import Any

from ...stages.statistics import match, rles
from .sample import Sampled


def compare_image(first: Sampled, second: Sampled | None) -> dict[str, Any]:
    """Pairs of masks of the same image, matched by IoU, and how much changed: 0 (the same masks) to 1 (all others)."""
    mine = _masks(first)
    if second is None:
        return {"pairs": [], "common": 0, "changed": None, "note": "not in the other data set"}
    theirs = _masks(second)
    if mine and theirs and mine[0]["size"] != theirs[0]["size"]:
        return {"pairs": [], "common": 0, "changed": 1.0, "note": "the photograph has another size there"}
    pairs = match(mine, theirs)
    count = len(mine) + len(theirs)
    changed = 1 - 2 * sum(iou for _, _, iou in pairs) / count if count else 0.0
    return {
        "pairs": [[i, j, round(iou, 3)] for i, j, iou in pairs],
        "common": len(pairs),
        "changed": round(changed, 4),
        "note": "",
    }


def summarise(
    compared: Sequence[dict[str, Any]], firsts: Sequence[Sampled], seconds: Sequence[Sampled | None]
) -> dict[str, Any]:
    """Totals over the compared images."""
    known = [c for c in compared if c["changed"] is not None]
    ious = [pair[2] for c in known for pair in c["pairs"]]
    return {
        "images": len(known),
        "missing": len(compared) - len(known),
        "identical": sum(c["changed"] < 1e-3 for c in known),
        "common": sum(c["common"] for c in known),
        "only_first": sum(len(f.masks) for f in firsts) - sum(c["common"] for c in known),
        "only_second": sum(len(s.masks) for s in seconds if s is not None) - sum(c["common"] for c in known),
        "mean_iou": round(sum(ious) / len(ious), 4) if ious else None,
        "mean_changed": round(sum(c["changed"] for c in known) / len(known), 4) if known else None,
    }


def _masks(sampled: Sampled) -> list[dict[str, Any]]:
    return rles(sampled.masks["counts"].to_pylist(), sampled.row["height"], sampled.row["width"])
