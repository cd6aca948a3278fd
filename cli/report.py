"""`report`: a data set as pages to look at, beside another one, over ground truth, or against a golden report."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import exits
from .options import DatasetUrl

if TYPE_CHECKING:
    from ..pipeline.report.page import Report


def report(
    dataset: DatasetUrl,
    out: Annotated[str, typer.Option(help="Folder or bucket URL for the pages.")] = "report",
    sample: Annotated[int, typer.Option(min=1, max=5000, help="Images to show.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Draws them, and the shards that distributions are of.")] = 0,
    compare: Annotated[str | None, typer.Option(metavar="DATASET", help="Another data set to show beside.")] = None,
    gt: Annotated[Path | None, typer.Option(help="COCO annotations, to show what was found and missed.")] = None,
    golden: Annotated[
        str | None,
        typer.Option(metavar="report.json", help="Fail if distributions have moved away from this report's."),
    ] = None,
    bound: Annotated[
        float, typer.Option(min=0, max=1, help="With --golden: how far, in total variation (0 equal, 1 disjoint).")
    ] = 0.1,
) -> None:
    """Write a report that opens from disk: index.html, and report.json with its numbers.

    Exit code 1 if --golden is given and something moved further than its bound.
    """
    from ..pipeline.report.drift import drift, read_report
    from ..pipeline.report.page import write_report
    from ..store.dataset import Dataset

    before = read_report(golden) if golden else None
    other = Dataset.open(compare) if compare else None
    written = write_report(Dataset.open(dataset), out, sample=sample, seed=seed, other=other, gt=gt)
    tell(written)
    if before is None:
        return
    found = drift(written.data, before, bound)
    for one in found:
        typer.echo(f"{'MOVED' if one.moved else 'ok   '} {one.name}: {one.distance:.3f} (at most {one.bound:.3f})")
    if few := [one.name for one in found if one.few]:
        typer.echo(
            f"warning: {len(few)} distributions have too few values for a bound of {bound:g}, and were allowed what "
            f"chance explains ({', '.join(few)}): compare larger data sets",
            err=True,
        )
    if any(one.moved for one in found):
        raise typer.Exit(exits.FOUND_WORSE)


def tell(written: "Report") -> None:
    """Where the report is, and what it could not show."""
    typer.echo(f"{written.page}: {written.sampled:,} images shown of {written.data.totals.images:,}")
    if written.missing:
        typer.echo(f"{len(written.missing):,} photographs could not be shown, such as {': '.join(written.missing[0])}")
    if not written.data.provenance.root_hash:
        typer.echo("the data set is not complete: the report shows what is there")
