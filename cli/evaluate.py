"""`evaluate`: AP and AR of a data set, or of a trained model, against COCO ground truth."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..schemas.errors import UserError
from . import exits
from .options import Device, LongSide, ShortSide, Threshold
from .referring import judge_task


def evaluate(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET|RUN|RESULTS", help="A data set, a run (with --images), or a json of COCO results."
        ),
    ],
    gt: Annotated[
        str,
        typer.Option(
            help="COCO annotation file with masks; of panoptic and matting runs: panoptic json, mattes; with --task "
            "its references or labels."
        ),
    ],
    json_: Annotated[
        str | None, typer.Option("--json", help="Also write the numbers, in per cent, to this file.")
    ] = None,
    all_images: Annotated[
        bool, typer.Option("--all-images", help="Count ground truth images that the data set does not hold as missed.")
    ] = False,
    images: Annotated[
        str | None,
        typer.Option(help="Of a run: the folder of the annotated photographs; of results: the photographs that count."),
    ] = None,
    boxes: Annotated[bool, typer.Option("--boxes", help="Boxes alone, for annotations without masks (VOC).")] = False,
    listed: Annotated[
        Path | None, typer.Option("--list", help="Text file that names the images that count: COCO 20k, VOC's sets.")
    ] = None,
    short_side: ShortSide = None,
    long_side: LongSide = None,
    threshold: Threshold = None,
    task: Annotated[
        str | None, typer.Option(help="Of unilseg: ris, rvos, semantic, open-vocabulary, salient or part.")
    ] = None,
    class_names: Annotated[str | None, typer.Option(help="Of label images: file of the classes' names.")] = None,
    zero_is_nothing: Annotated[
        bool, typer.Option("--zero-is-nothing", help="Label images count classes from 1 (ADE20K, LIP).")
    ] = False,
    annotations: Annotated[str | None, typer.Option(help="Of rvos: folder of the annotated frames.")] = None,
    submission: Annotated[str | None, typer.Option(help="Of rvos: folder to write masks for the server to.")] = None,
    split: Annotated[str, typer.Option(help="Of ris: the split of the references.")] = "",
    classes: Annotated[
        Literal["novel", "base", "all"] | None,
        typer.Option(help="Of a run with --base: classes without masks in training, with masks, or all."),
    ] = None,
    oracle_masks: Annotated[
        bool, typer.Option("--oracle-masks", help="Of a run: put the annotated mask in place of each found one.")
    ] = False,
    max_detections: Annotated[
        int | None, typer.Option(min=11, max=1000, help="Of a run: instances of an image that count (LVIS: 300).")
    ] = None,
    device: Device = "auto",
) -> None:
    """Compare masks and boxes with ground truth: all categories as one (useCats = 0); of a run by category as well.

    With --task, a run of unilseg on one of its tasks, by that task's metrics.
    """
    if task is not None:
        inputs = {"classes": class_names, "annotations": annotations, "submission": submission}
        judge_task(Path(dataset), task, images, gt, inputs, zero_is_nothing, split, json_, device)
        return
    results = dataset.endswith(".json") and Path(dataset).is_file()
    from ..pipeline.training.scores import coco_rows

    unusable: dict[str, str] = {}
    if images is not None and not results and (boxes or listed is not None):
        raise UserError("--boxes and --list are for a data set: label the photographs with `generate --model` first.")
    if images is None or results:
        if (short_side, long_side, threshold, max_detections) != (None,) * 4:
            raise UserError(
                "Sides, threshold and --max-detections are of a model that is run: give --images, or leave them out."
            )
        if classes is not None or oracle_masks:
            raise UserError("--classes and --oracle-masks are for runs: give --images, the photographs, with a RUN.")
        from ..pipeline.evaluate import evaluate_dataset, evaluate_results
        from ..store.dataset import Dataset

        if results:
            result = evaluate_results(Path(dataset), Path(gt), images=images, boxes=boxes, listed=listed)
            rows = coco_rows(result)
        else:
            opened = Dataset.open(dataset)
            result = evaluate_dataset(opened, Path(gt), all_images=all_images, boxes=boxes, listed=listed)
            rows = coco_rows({"": result})
    else:
        from ..pipeline.training.evaluate import evaluate_run
        from ..pipeline.training.find import Conditions
        from ..stages.device import resolve_device

        conditions = Conditions(short_side, long_side, threshold, max_detections)
        scores = evaluate_run(
            Path(dataset),
            images,
            gt,
            resolve_device(device),
            conditions,
            classes=classes,
            oracle_masks=oracle_masks,
        )
        result, rows, unusable = scores.report, scores.rows, dict(scores.unusable)
    if json_ is not None:
        Path(json_).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    _print_rows(rows)
    counted = result.get("class_agnostic", result)
    if "objects" in counted:
        lost = counted["ignored_images"]
        beside = f"; {lost:,} other images are not in it" if lost else ""
        typer.echo(f"{counted['images']:,} images with {counted['objects']:,} objects of {gt}{beside}")
    for name, trouble in unusable.items():
        typer.echo(f"{name} was left out: {trouble}", err=True)
    raise typer.Exit(exits.SET_ASIDE if unusable else exits.DONE)


def _print_rows(rows: Mapping[str, Mapping[str, float | int | None]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", *next(iter(rows.values())))
    for name, row in rows.items():
        table.add_row(name, *(_shown(value) for value in row.values()))
    Console(width=None if Console().is_terminal else 140).print(table)


def _shown(value: float | int | None) -> str:
    if value is None:
        return "-"
    return (
        str(value) if isinstance(value, int) else f"{value:.2f}" if abs(value) >= 0.1 or not value else f"{value:.2g}"
    )
