"""`evaluate`: AP and AR of a data set, or of a trained model, against COCO ground truth."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..schemas.errors import UserError
from .options import Device


def evaluate(
    dataset: Annotated[str, typer.Argument(metavar="DATASET|RUN", help="A data set, or a run (with --images).")],
    gt: Annotated[str, typer.Option(help="COCO annotation file with masks.")],
    json_: Annotated[
        str | None, typer.Option("--json", help="Also write the numbers, in per cent, to this file.")
    ] = None,
    all_images: Annotated[
        bool, typer.Option("--all-images", help="Count ground truth images that the data set does not hold as missed.")
    ] = False,
    images: Annotated[str | None, typer.Option(help="Of a run: the folder of the annotated photographs.")] = None,
    boxes: Annotated[bool, typer.Option("--boxes", help="Boxes alone, for annotations without masks (VOC).")] = False,
    listed: Annotated[
        Path | None, typer.Option("--list", help="Text file that names the images that count: COCO 20k, VOC's sets.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Compare masks and boxes with ground truth: all categories as one (useCats = 0); of a run by category as well."""
    from rich.console import Console
    from rich.table import Table

    if images is not None and (boxes or listed is not None):
        raise UserError("--boxes and --list are for a data set: label the photographs with `generate --model` first.")
    if images is None:
        from ..pipeline.evaluate import evaluate_dataset
        from ..store.dataset import Dataset

        result = evaluate_dataset(Dataset.open(dataset), Path(gt), all_images=all_images, boxes=boxes, listed=listed)
        parts = {"": result}
    else:
        from ..pipeline.training.evaluate import evaluate_run
        from ..stages.device import resolve_device

        parts = result = evaluate_run(Path(dataset), images, gt, resolve_device(device)).report
    if json_ is not None:
        Path(json_).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    table = Table("", *next(iter(parts.values()))["bbox"])
    for part, numbers in parts.items():
        for kind in (kind for kind in ("segm", "bbox") if kind in numbers):
            shown = ("-" if v is None else f"{v:.2f}" for v in numbers[kind].values())
            table.add_row(f"{part} {kind}".strip(), *shown)
    Console(width=None if Console().is_terminal else 140).print(table)
