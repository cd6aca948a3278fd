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
    min_score: Annotated[float, typer.Option(help="Leave out masks with a lower score.")] = 0.0,
    top: Annotated[int | None, typer.Option(min=1, help="Draw at most so many masks of an image, best first.")] = None,
    alpha: Annotated[float, typer.Option(min=0, max=1, help="Opacity of the masks' fills; 0 draws outlines.")] = 0.25,
    labels: Annotated[int, typer.Option(min=0, help="Write at most so many scores, best first.")] = 8,
    boxes: Annotated[bool, typer.Option("--boxes", help="Draw boxes as well.")] = False,
    seeds: Annotated[bool, typer.Option("--seeds", help="Mark saliency's seed points as well.")] = False,
) -> None:
    """Draw masks and scores over the photographs."""
    from ..pipeline.export.choice import Choice
    from ..pipeline.show import draw_dataset
    from ..stages.overlay import Style
    from ..store.dataset import Dataset

    opened = Dataset.open(dataset)
    drawn = draw_dataset(
        opened,
        out,
        limit=limit,
        wanted=image or [],
        choice=Choice(min_score=min_score, top=top),
        style=Style(alpha, boxes, labels),
        seeds=seeds,
    )
    if not drawn and not any(commit.counts.ok for commit in opened.commits()):
        raise UserError(
            f"{dataset} has no image with masks: label again with lower scores (`status` says what became of them)."
        )
    if not drawn:
        raise UserError("No image was drawn: the photographs were moved or changed.")
    for path in drawn:
        typer.echo(path)
    empty = sum(commit.counts.empty for commit in opened.commits())
    if empty and not image and len(drawn) < limit:
        typer.echo(f"not drawn: {empty:,} without a mask (--image NAME draws one)", err=True)
