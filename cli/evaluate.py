"""`evaluate`: class-agnostic AP and AR against COCO ground truth."""

import json
from pathlib import Path
from typing import Annotated

import typer

from .options import DatasetUrl


def evaluate(
    dataset: DatasetUrl,
    gt: Annotated[str, typer.Option(help="COCO annotation file with masks.")],
    json_: Annotated[
        str | None, typer.Option("--json", help="Also write the numbers, in per cent, to this file.")
    ] = None,
    all_images: Annotated[
        bool, typer.Option("--all-images", help="Count ground truth images that the data set does not hold as missed.")
    ] = False,
) -> None:
    """Compare the masks and their boxes with ground truth, all categories as one (useCats = 0)."""
    from rich.console import Console
    from rich.table import Table

    from ..pipeline.evaluate import evaluate_dataset
    from ..store.dataset import Dataset

    result = evaluate_dataset(Dataset.open(dataset), Path(gt), all_images=all_images)
    if json_ is not None:
        Path(json_).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    table = Table("", *result["segm"])
    for kind in ("segm", "bbox"):
        table.add_row(kind, *("-" if v is None else f"{v:.2f}" for v in result[kind].values()))
    Console(width=None if Console().is_terminal else 140).print(table)
