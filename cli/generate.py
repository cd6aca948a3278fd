"""`generate`: the main job; `import-masks`: the same with masks from elsewhere."""

import shlex
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from ..schemas.errors import UserError
from . import exits
from .options import (
    ConfigFile,
    CpusPerWorker,
    Device,
    Every,
    From,
    GpusPerWorker,
    LabelledBy,
    LabelPreset,
    MaxWorkers,
    MinWorkers,
    Model,
    NoFollowLinks,
    Overrides,
    PhotosOrNone,
    Ray,
    Root,
    Weights,
    executor,
    label_config,
    plain_console,
    with_weights,
)
from .plan import print_estimate

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ..pipeline.generate import Executor, Job
    from ..pipeline.sources import Source
    from ..store.dataset import Dataset


def generate(
    out: Annotated[str, typer.Option(help="The data set: a folder or a bucket URL. An unfinished one is resumed.")],
    photos: PhotosOrNone = None,
    producer: LabelledBy = None,
    model: Model = None,
    from_: From = None,
    weights: Weights = None,
    preset: LabelPreset = None,
    config: ConfigFile = None,
    set_: Overrides = None,
    root: Root = None,
    every: Every = None,
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
    """Make pseudo-masks and prompt vectors from photographs, or label them with a trained model (--model).

    Exit codes: 0 all done, or drained; 2 something you can fix; 3 all done, but some images were set aside; 130
    interrupted.
    """
    settings = label_config(model, weights, preset, config, set_, producer)
    if photos is None and from_ is None:
        raise UserError("Name the photographs, or a data set whose photographs to take with --from.")

    from ..pipeline import generate as job
    from ..pipeline.estimate import estimate
    from ..pipeline.parent import ParentPhotos, open_parent
    from ..pipeline.plan import cut_like
    from ..pipeline.sources import open_source
    from ..stages.device import resolve_device

    console = plain_console(stderr=True)
    where = resolve_device(device)
    parent = None if from_ is None else open_parent(from_)
    source = (
        open_source(photos or "", root, follow_links=not no_follow_links, every=every)
        if parent is None
        else ParentPhotos(parent, photos)
    )
    run = None if model is None else str(Path(model).absolute())  # workers start elsewhere
    task = job.Job(out, settings, where, run, parent)
    if dry_run:
        print_estimate(console, out, estimate(source, cut_like(parent, settings), task.labeller.load(), where))
        return
    place = executor(ray, device, gpus_per_worker, cpus_per_worker, min_workers, max_workers)
    carry_out(source, task, place, retry=retry_quarantined, report=report)


def carry_out(
    source: "Source", task: "Job", place: "AbstractContextManager[Executor | None]", *, retry: bool, report: bool
) -> NoReturn:
    """Run a job, say what came out, and end with the exit code."""
    from ..pipeline import generate as job
    from ..pipeline.progress import Display
    from ..pipeline.signals import graceful_stop

    console = plain_console(stderr=True)
    do = job.retry_quarantined if retry else job.generate

    def say_stopping() -> None:
        console.print("finishing the shards on the device; press Ctrl-C again to stop at once (nothing is lost)")

    # Ray takes the signals for itself as it starts: ours come after.
    with place as where_to, graceful_stop(say_stopping) as stop, Display(console) as display:
        dataset, outcome = do(source, task, display, stop, where_to)
    if outcome.drained and outcome.shards_left:
        console.print(f"drained: {outcome.shards_left:,} shards are left; run the same command again to resume")
        raise typer.Exit(exits.DONE)
    if outcome.shards_left:
        console.print(f"stopped: {outcome.shards_left:,} shards are left; run the same command again to resume")
        raise typer.Exit(exits.INTERRUPTED)
    code = _print_outcome(console, dataset)
    if report:
        from ..pipeline.report.page import write_report
        from .report import tell

        tell(write_report(dataset, f"{task.out.rstrip('/')}-report"))
    raise typer.Exit(code)


class MaskFormat(StrEnum):
    """How masks are written."""

    COCO = "coco"
    YOLO = "yolo"
    PNG = "png"
    SAM = "sam"


def import_masks(
    masks: Annotated[
        str,
        typer.Argument(help="A COCO json (instances or results), or a folder: YOLO texts, PNG masks, SAM's output."),
    ],
    out: Annotated[str, typer.Option(help="The data set: a folder or a bucket URL. An unfinished one is resumed.")],
    photos: Annotated[
        str | None,
        typer.Option(help="The photographs: a folder, list, COCO json or URL; of COCO instances they may go unsaid."),
    ] = None,
    root: Root = None,
    format_: Annotated[
        MaskFormat | None, typer.Option("--format", help="How the masks are written, if that is not obvious.")
    ] = None,
    weights: Weights = None,
    config: ConfigFile = None,
    set_: Overrides = None,
    device: Device = "auto",
    retry_quarantined: Annotated[
        bool, typer.Option("--retry-quarantined", help="Try again the images that were set aside.")
    ] = False,
) -> None:
    """Make a data set of anybody's masks, with seed vectors from a frozen backbone, to look at or to train on.

    Images without masks are kept as empty; those whose masks are of another size are set aside. Exit codes as of
    `generate`.
    """
    from ..pipeline.generate import Job
    from ..pipeline.imports import photographs_of, with_masks
    from ..schemas.labels.imported import ImportedConfig
    from ..schemas.registry import load_label_config
    from ..stages.device import resolve_device

    settings = load_label_config("imported", None, config, with_weights(set_, weights))
    assert isinstance(settings, ImportedConfig)
    source = photographs_of(masks, photos, root)
    found = with_masks(settings, masks, None if format_ is None else format_.value)
    carry_out(source, Job(out, found, resolve_device(device)), nullcontext(), retry=retry_quarantined, report=False)


def _print_outcome(console: Console, dataset: "Dataset") -> int:
    """Say what came out and give the exit code."""
    from ..pipeline.status import quarantined_images, status

    now = status(dataset)
    counts = now.counts
    console.print(
        f"sealed {now.url}: {counts.images:,} images, {counts.masks:,} masks, {counts.empty:,} without a mask, "
        f"{counts.quarantined:,} quarantined; root hash {now.root_hash}",
    )
    if counts.masks:
        console.print(f"look at it: saliency-prompt show {shlex.quote(now.url)} --out overlays")
    if not counts.quarantined:
        return exits.DONE
    listed, _ = quarantined_images(dataset, limit=20)
    for image in listed:
        console.print(f"  {image.file_name}: {image.reason}: {image.error}")
    if counts.quarantined > len(listed):
        console.print(f"  and {counts.quarantined - len(listed):,} more: see `saliency-prompt status --quarantined`")
    console.print("repair them and run the command again with --retry-quarantined")
    return exits.SET_ASIDE
