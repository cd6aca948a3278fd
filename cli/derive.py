"""`dataset filter|sample|split|merge|dedup`: complete data sets made from complete ones."""

from typing import TYPE_CHECKING, Annotated

import typer

from ..schemas.errors import UserError
from .options import DatasetUrl, Keep, Verdicts, reviewed_by

if TYPE_CHECKING:
    from ..schemas.manifest import Seal
    from ..store.dataset import Dataset

app = typer.Typer(
    help="Make complete data sets from complete ones; the new card says from which.", no_args_is_help=True
)

Out = Annotated[str, typer.Option(help="The new data set: a folder or a bucket URL. An unfinished one is resumed.")]


@app.command("filter")
def filter_(
    dataset: DatasetUrl,
    out: Out,
    min_score: Annotated[float, typer.Option(help="Leave out masks with a lower score.")] = 0.0,
    top: Annotated[int | None, typer.Option(min=1, help="Keep at most so many masks of an image, best first.")] = None,
    min_area: Annotated[int, typer.Option(min=0, help="Leave out smaller masks, in pixels.")] = 0,
    max_share: Annotated[
        float, typer.Option(min=0, max=1, help="Leave out masks that cover more of the image, as a fraction.")
    ] = 1.0,
    label: Annotated[
        list[int] | None, typer.Option(help="Keep these classes alone, by index; may be repeated.")
    ] = None,
    reviewed: Keep = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="Keep what bears this tag alone, itself or its image; may be repeated.")
    ] = None,
    verdicts: Verdicts = None,
    drop_empty: Annotated[bool, typer.Option("--drop-empty", help="Leave out images without masks.")] = False,
    drop_quarantined: Annotated[
        bool, typer.Option("--drop-quarantined", help="Leave out images that were set aside.")
    ] = False,
) -> None:
    """Leave out masks by score, rank, area or class, or by what people said of them in `review`."""
    from ..pipeline.derive import MaskFilter, filter_masks

    labels = None if label is None else tuple(label)
    people = reviewed_by(dataset, reviewed, verdicts, tag or ())
    wanted = MaskFilter(min_score, top, min_area, max_share, labels, drop_empty, drop_quarantined, people)
    _tell(*filter_masks(dataset, out, wanted))


@app.command()
def sample(
    dataset: DatasetUrl,
    out: Out,
    images: Annotated[int, typer.Option(min=1, help="How many images.")],
    seed: Annotated[int, typer.Option(min=0, help="Another seed takes others.")] = 0,
) -> None:
    """Take some images by chance."""
    from ..pipeline.derive import sample as take

    _tell(*take(dataset, out, images=images, seed=seed))


@app.command()
def split(
    dataset: DatasetUrl,
    out: Annotated[str, typer.Option(help="Where to: OUT-train, OUT-val, and OUT-test if there are three shares.")],
    shares: Annotated[str, typer.Option(help="Shares that add up to one, such as 0.9/0.1.")] = "0.9/0.1",
) -> None:
    """Part the images into data sets for training, validation and test."""
    from ..pipeline.derive import split as part
    from ..pipeline.export.choice import SPLIT_NAMES, parse_shares

    numbers = parse_shares(shares)
    for made in part(dataset, [f"{out.rstrip('/')}-{name}" for name in SPLIT_NAMES[: len(numbers)]], numbers):
        _tell(*made)


@app.command()
def merge(
    datasets: Annotated[list[str], typer.Argument(metavar="DATASET...", help="Folders or bucket URLs of data sets.")],
    out: Out,
) -> None:
    """Put the images of several data sets into one: of one producer and backbone, no image in two."""
    from ..pipeline.derive import merge as join

    if len(datasets) < 2:
        raise UserError("Merging takes two data sets or more: name them all.")
    _tell(*join(datasets, out))


@app.command()
def dedup(
    dataset: DatasetUrl,
    out: Out,
    threshold: Annotated[
        float, typer.Option(min=-1, max=1, help="Cosine of the images' mean vectors from which they are the same.")
    ] = 0.99,
) -> None:
    """Keep the first of images with the same bytes or nearly the same vectors."""
    from ..pipeline.derive import dedup as keep_first

    _tell(*keep_first(dataset, out, threshold=threshold))


def _tell(dataset: "Dataset", seal: "Seal") -> None:
    counts = seal.counts
    typer.echo(f"sealed {dataset.url}: {counts.images:,} images, {counts.masks:,} masks; root hash {seal.root_hash}")
