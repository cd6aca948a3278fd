"""`export`: a data set in another program's format."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from .options import DatasetUrl, Keep, Kept, Verdicts, reviewed_by

if TYPE_CHECKING:
    from ..pipeline.export.choice import Choice
    from ..pipeline.export.target import ExportReport
    from ..store.dataset import Dataset

app = typer.Typer(help="Write a data set in another format.", no_args_is_help=True)

MinScore = Annotated[float, typer.Option(help="Leave out masks with a lower score.")]
Top = Annotated[int | None, typer.Option(min=1, help="Write at most so many masks of an image, best first.")]
MinArea = Annotated[int, typer.Option(min=0, help="Leave out smaller masks, in pixels.")]
Split = Annotated[
    str | None,
    typer.Option(metavar="SHARES", help="Photographs for training, validation and perhaps test, such as 0.9/0.1."),
]
Names = Annotated[
    str | None,
    typer.Option(metavar="A,B,...", help="Names of the classes, by comma; by default those of the data set."),
]
Tolerance = Annotated[
    float, typer.Option(min=0, help="How far polygons may lie from the mask, in pixels; 0 keeps every corner.")
]
Polygons = Annotated[bool, typer.Option("--polygons", help="Polygons instead of masks.")]


class Placing(StrEnum):
    """What becomes of the photographs."""

    LINK = "link"
    COPY = "copy"
    NONE = "none"


Images = Annotated[Placing, typer.Option(help="Photographs beside the labels: links to them, copies, or none.")]
Folder = Annotated[str, typer.Argument(metavar="FOLDER", help="The folder to write; it must be new.")]
JsonFile = Annotated[
    str, typer.Argument(metavar="FILE", help="The json file to write; with --split one for each part.")
]


@app.command()
def coco(
    dataset: DatasetUrl,
    annotations: JsonFile,
    min_score: MinScore = 0.0,
    top: Top = None,
    min_area: MinArea = 0,
    split: Split = None,
    reviewed: Keep = None,
    verdicts: Verdicts = None,
    names: Names = None,
    polygons: Polygons = False,
    tolerance: Tolerance = 0.0,
) -> None:
    """Write COCO annotations: RLE masks or polygons, boxes, scores. Large image ids become small ones from 1 on."""
    from ..pipeline.export.coco import export_coco

    choice = _choice(dataset, min_score, top, min_area, split, reviewed, verdicts)
    opened = _open(dataset)
    _tell(export_coco(opened, annotations, choice, class_names=_names(names), polygons=polygons, tolerance=tolerance))


@app.command()
def fiftyone(
    dataset: DatasetUrl,
    out: Folder,
    min_score: MinScore = 0.0,
    top: Top = None,
    min_area: MinArea = 0,
    split: Split = None,
    reviewed: Keep = None,
    verdicts: Verdicts = None,
    names: Names = None,
    images: Images = Placing.LINK,
) -> None:
    """Write a folder for FiftyOne: `data/` and `labels.json`, its COCODetectionDataset."""
    from ..pipeline.export.coco import export_fiftyone

    choice = _choice(dataset, min_score, top, min_area, split, reviewed, verdicts)
    _tell(export_fiftyone(_open(dataset), out, choice, class_names=_names(names), placing=images.value))


@app.command()
def yolo(
    dataset: DatasetUrl,
    out: Folder,
    min_score: MinScore = 0.0,
    top: Top = None,
    min_area: MinArea = 0,
    split: Split = None,
    reviewed: Keep = None,
    verdicts: Verdicts = None,
    names: Names = None,
    tolerance: Tolerance = 1.0,
    images: Images = Placing.LINK,
) -> None:
    """Write a folder for YOLO segmentation: images, a text file of polygons for each, and `data.yaml`."""
    from ..pipeline.export.yolo import export_yolo

    choice = _choice(dataset, min_score, top, min_area, split, reviewed, verdicts)
    report = export_yolo(
        _open(dataset), out, choice, class_names=_names(names), tolerance=tolerance, placing=images.value
    )
    _tell(report)


@app.command()
def cvat(
    dataset: DatasetUrl,
    annotations: Annotated[str, typer.Argument(metavar="FILE", help="The xml file to write.")],
    min_score: MinScore = 0.0,
    top: Top = None,
    min_area: MinArea = 0,
    split: Split = None,
    reviewed: Keep = None,
    verdicts: Verdicts = None,
    names: Names = None,
    polygons: Polygons = False,
    tolerance: Tolerance = 1.0,
) -> None:
    """Write annotations for CVAT ("CVAT for images 1.1"): upload them to a task that has the photographs."""
    from ..pipeline.export.cvat import export_cvat

    choice = _choice(dataset, min_score, top, min_area, split, reviewed, verdicts)
    opened = _open(dataset)
    _tell(export_cvat(opened, annotations, choice, class_names=_names(names), polygons=polygons, tolerance=tolerance))


@app.command("label-studio")
def label_studio(
    dataset: DatasetUrl,
    annotations: JsonFile,
    min_score: MinScore = 0.0,
    top: Top = None,
    min_area: MinArea = 0,
    split: Split = None,
    reviewed: Keep = None,
    verdicts: Verdicts = None,
    names: Names = None,
    tolerance: Tolerance = 1.0,
    photos_url: Annotated[
        str, typer.Option(help="Put before the photographs' names: where Label Studio finds them.")
    ] = "/data/local-files/?d=",
) -> None:
    """Write tasks with predictions for Label Studio, and the labelling interface beside them."""
    from ..pipeline.export.label_studio import export_label_studio

    choice = _choice(dataset, min_score, top, min_area, split, reviewed, verdicts)
    report = export_label_studio(
        _open(dataset), annotations, choice, class_names=_names(names), tolerance=tolerance, photos_url=photos_url
    )
    _tell(report)


@app.command()
def png(
    dataset: DatasetUrl,
    out: Folder,
    min_score: MinScore = 0.0,
    top: Top = None,
    min_area: MinArea = 0,
    split: Split = None,
    reviewed: Keep = None,
    verdicts: Verdicts = None,
    names: Names = None,
    each: Annotated[
        bool, typer.Option("--each", help="A file for each mask, instead of one of numbers for each photograph.")
    ] = False,
) -> None:
    """Write PNG masks and a table of them: numbers from 1 for the best, or black and white for each mask."""
    from ..pipeline.export.png import export_png

    choice = _choice(dataset, min_score, top, min_area, split, reviewed, verdicts)
    _tell(export_png(_open(dataset), out, choice, class_names=_names(names), each=each))


@app.command("hugging-face")
def hugging_face(
    dataset: DatasetUrl,
    out: Folder,
    min_score: MinScore = 0.0,
    top: Top = None,
    min_area: MinArea = 0,
    split: Split = None,
    reviewed: Keep = None,
    verdicts: Verdicts = None,
    names: Names = None,
) -> None:
    """Write a folder for Hugging Face's `load_dataset`: parquet with the photographs inside."""
    from ..pipeline.export.hugging_face import export_hugging_face

    choice = _choice(dataset, min_score, top, min_area, split, reviewed, verdicts)
    _tell(export_hugging_face(_open(dataset), out, choice, class_names=_names(names)))


def _open(url: str) -> "Dataset":
    from ..store.dataset import Dataset

    return Dataset.open(url)


def _choice(
    dataset: str,
    min_score: float,
    top: int | None,
    min_area: int,
    split: str | None,
    reviewed: Kept | None,
    verdicts: str | None,
) -> "Choice":
    from ..pipeline.export.choice import Choice, parse_shares

    return Choice(min_score, top, min_area, parse_shares(split), reviewed_by(dataset, reviewed, verdicts))


def _names(text: str | None) -> list[str]:
    return [] if text is None else [name.strip() for name in text.split(",")]


def _tell(report: "ExportReport") -> None:
    where = ", ".join(map(str, report.paths))
    typer.echo(f"wrote {where}: {report.images:,} images, {report.annotations:,} masks")
