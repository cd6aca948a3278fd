"""`verify`, `gc` and `show`: everything that looks at a data set."""

from typing import Annotated

import typer

from ..schemas.errors import UserError
from . import exits
from .options import DatasetUrl


def verify(dataset: DatasetUrl) -> None:
    """Read every file again and check hashes, counts, boxes and coverage. Exit code 1 if anything is wrong."""
    from ..store.check import verify as check
    from ..store.dataset import Dataset

    report = check(Dataset.open(dataset))
    for problem in report.problems:
        typer.echo(str(problem))
    typer.echo(report.summary)
    raise typer.Exit(exits.FOUND_WORSE if report.problems else exits.DONE)


def gc(
    dataset: DatasetUrl,
    grace: Annotated[
        float, typer.Option(help="Keep files younger than this, in seconds: they may be in use. A week by default.")
    ] = 7 * 86400,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
) -> None:
    """Remove what no commit names: the remains of interrupted and superseded work."""
    from ..store.check import gc as collect
    from ..store.dataset import Dataset

    report = collect(Dataset.open(dataset), grace_seconds=grace, dry_run=dry_run)
    typer.echo(f"{'would remove' if dry_run else 'removed'} {report.files:,} files, {report.bytes / 1e6:,.1f} MB")


def show(
    dataset: DatasetUrl,
    out: Annotated[str, typer.Option(help="Folder for the pictures.")],
    limit: Annotated[int, typer.Option(min=1, help="Draw at most so many images, in the data set's order.")] = 50,
    image: Annotated[list[str] | None, typer.Option(help="Draw these file names or ids only; may be repeated.")] = None,
) -> None:
    """Draw masks, boxes, scores and seed points over the photographs."""
    from ..pipeline.show import draw_dataset
    from ..store.dataset import Dataset

    drawn = draw_dataset(Dataset.open(dataset), out, limit=limit, wanted=image or [])
    if not drawn:
        raise UserError("No image was drawn: the photographs were moved, or none has the given name.")
    for path in drawn:
        typer.echo(path)
