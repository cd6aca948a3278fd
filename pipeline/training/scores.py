"""What an evaluation says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, float | int | None]


@dataclass(frozen=True, slots=True)
class Scores:
    """A report for a file, the few numbers that curves show, and the rows of a table: all with the same columns.

    `unusable` says by image why its truth could not be used.
    """

    report: dict[str, Any]
    numbers: dict[str, float]
    rows: dict[str, Row] = field(default_factory=dict)
    unusable: Mapping[str, str] = field(default_factory=dict)


def coco_rows(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Row]:
    """Rows of COCO reports by name."""
    return {
        f"{part} {kind}".strip(): one[kind] for part, one in parts.items() for kind in ("segm", "bbox") if kind in one
    }
