"""`annotate`: photographs to masks with texts; `score`: how well they fit, and what a quantile would leave out."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .options import (
    ConfigFile,
    CpusPerWorker,
    DatasetUrl,
    Device,
    GpusPerWorker,
    MaxWorkers,
    MinWorkers,
    NoFollowLinks,
    Overrides,
    Photos,
    Ray,
    Root,
)

Branch = Literal["unlabelled", "boxes", "tags"]


def annotate(
    photos: Photos,
    out: Annotated[str, typer.Option(help="The data set: a folder or a bucket URL. An unfinished one is resumed.")],
    branch: Annotated[Branch, typer.Option(help="Pairs from captions, boxes (--gt), or tags.")] = "unlabelled",
    gt: Annotated[str | None, typer.Option(help="Of boxes: COCO annotations.")] = None,
    vocabulary: Annotated[str | None, typer.Option(help="Of tags: a file of tags, one a line.")] = None,
    referrer: Annotated[
        str | None, typer.Option(metavar="RUN", help="Of unlabelled: a run of UniLSeg trained on references.")
    ] = None,
    config: ConfigFile = None,
    set_: Overrides = None,
    root: Root = None,
    no_follow_links: NoFollowLinks = False,
    device: Device = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan with bytes and time, and stop.")] = False,
    retry_quarantined: Annotated[
        bool, typer.Option("--retry-quarantined", help="Try again the images that were set aside.")
    ] = False,
    ray: Ray = None,
    gpus_per_worker: GpusPerWorker = None,
    cpus_per_worker: CpusPerWorker = 4,
    min_workers: MinWorkers = 1,
    max_workers: MaxWorkers = None,
    report: Annotated[
        bool, typer.Option("--report", help="Write a report at the end: OUT-report beside the data set.")
    ] = False,
) -> None:
    """Make pairs of masks and texts from photographs, by a chain of models. Exit codes are those of `generate`."""
    from ..schemas.registry import load_label_config
    from .generate import run_labelling

    files = {"boxes.gt": gt, "tags.vocabulary": vocabulary}
    named = [f"{key}={str(Path(file).absolute())!r}" for key, file in files.items() if file is not None]
    settings = load_label_config("annotate", None, config, [f"annotate.branch={branch}", *named, *(set_ or [])])
    run_labelling(
        out,
        photos,
        referrer,
        None,
        settings,
        root,
        device,
        (ray, gpus_per_worker, cpus_per_worker, min_workers, max_workers),
        follow_links=not no_follow_links,
        dry_run=dry_run,
        retry=retry_quarantined,
        report=report,
    )


def score(
    dataset: DatasetUrl,
    drop_lowest: Annotated[
        float, typer.Option(min=0, max=99.9, help="Per cent of the pairs of each source to leave out.")
    ] = 20.0,
) -> None:
    """Say what a quantile of text scores would leave out, by source. Scores stay; training applies it when reading."""
    from rich.console import Console
    from rich.table import Table

    from ..pipeline.pairs import score_pairs

    table = Table("source", "pairs", "without a score", "median", "threshold", "left out", "lowest that stays")
    for one in score_pairs(dataset, drop_lowest):
        shown = [f"{value:.3f}" for value in (one.median, one.threshold)]
        table.add_row(one.source, f"{one.pairs:,}", f"{one.unscored:,}", *shown, f"{one.dropped:,}", one.lowest_text)
    Console(width=None if Console().is_terminal else 140).print(table)
    rest = f"--model unilseg --set data.drop_lowest={drop_lowest:g}"
    typer.echo(f"train on the rest: saliency-prompt train {dataset} {rest}")
