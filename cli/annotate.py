"""`annotate`: photographs to masks with texts; `score`: how well they fit, and what a quantile would leave out."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..schemas.errors import UserError
from . import exits
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
    Ray,
    Root,
    executor,
    plain_console,
)
from .plan import print_estimate

Branch = Literal["unlabelled", "boxes", "tags", "masks"]


def annotate(
    out: Annotated[str, typer.Option(help="The data set: a folder or a bucket URL. An unfinished one is resumed.")],
    photos: Annotated[
        str | None, typer.Argument(help="A folder, list file, COCO json or URL; with --from it may go unsaid.")
    ] = None,
    branch: Annotated[
        Branch, typer.Option(help="Pairs from captions, boxes (--gt), tags, or of the masks of --from.")
    ] = "unlabelled",
    from_: Annotated[
        str | None, typer.Option("--from", metavar="DATASET", help="What to go on from: masks, or a pass before.")
    ] = None,
    passes: Annotated[
        bool, typer.Option("--passes", help="One step, and its models, at a time, each into a data set beside OUT.")
    ] = False,
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
    from ..pipeline.estimate import estimate
    from ..pipeline.generate import Job
    from ..pipeline.parent import ParentPhotos, open_parent
    from ..pipeline.passes import in_passes
    from ..pipeline.plan import cut_like
    from ..pipeline.sources import open_source
    from ..schemas.labels.annotate import AnnotateConfig
    from ..schemas.registry import load_label_config
    from ..stages.device import resolve_device
    from ..store.dataset import Dataset
    from .generate import carry_out

    if photos is None and from_ is None:
        raise UserError("Name the photographs, or a data set whose photographs to take with --from.")
    files = {"boxes.gt": gt, "tags.vocabulary": vocabulary}  # workers start elsewhere: whole paths
    named = [f"{key}={str(Path(file).absolute())!r}" for key, file in files.items() if file is not None]
    settings = load_label_config("annotate", None, config, [f"annotate.branch={branch}", *named, *(set_ or [])])
    assert isinstance(settings, AnnotateConfig)
    where, code = resolve_device(device), exits.DONE
    run = None if referrer is None else str(Path(referrer).absolute())
    for one, to in in_passes(settings, out) if passes else [(settings, out)]:
        parent = None if from_ is None else open_parent(from_)
        source = (
            open_source(photos or "", root, follow_links=not no_follow_links)
            if parent is None
            else ParentPhotos(parent, photos)
        )
        job = Job(to, one, where, run, parent)
        if dry_run:
            plan = estimate(source, cut_like(parent, one), job.labeller.load(), where)
            print_estimate(plain_console(stderr=True), to, plan)
            return
        place = executor(ray, device, gpus_per_worker, cpus_per_worker, min_workers, max_workers)
        try:
            carry_out(source, job, place, retry=retry_quarantined, report=report and to == out)
        except typer.Exit as end:
            if Dataset.open(to).sealed is None:
                raise
            code = end.exit_code
        from_, photos = to, None
    raise typer.Exit(code)


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
