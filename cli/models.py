"""`models`, `import`, `predict`, `kernels`, `curves`, `convert`: what can be trained, and what is done with it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from . import exits
from .jobs import Out, RunFolder
from .options import Device, LongSide, Overrides, Root, ShortSide, Threshold
from .referring import ask


def models() -> None:
    """List what can be trained and what can label photographs, with presets and needs."""
    from rich.console import Console
    from rich.table import Table

    from ..schemas.registry import PRODUCERS
    from ..schemas.training.densecl import DENSECL_PRESETS
    from ..schemas.training.registry import MODELS
    from ..schemas.training.unilseg import UNILSEG_PRESETS

    table = Table("model", "what it is", "command", "presets")
    for name, spec in MODELS.items():
        table.add_row(name, spec.words, f"train --model {name}", ", ".join(spec.presets))
        if spec.pretrain_presets is not None:
            table.add_row(
                "", "the same with Saliency Prompt", f"pretrain --model {name}", ", ".join(spec.pretrain_presets)
            )
    table.add_row("unilseg", "UniLSeg: masks of what a text names", "train --model unilseg", ", ".join(UNILSEG_PRESETS))
    table.add_row("densecl", "a backbone, from photographs alone", "densecl", ", ".join(DENSECL_PRESETS))
    labelling = Table("producer", "what it makes", "needs", "command", "presets")
    for name, producer in PRODUCERS.items():
        command = f"generate PHOTOS {producer.option}" if producer.option.startswith("--") else producer.option
        labelling.add_row(name, producer.about, producer.needs, command, ", ".join(producer.presets))
    console = Console(width=None if Console().is_terminal else 140)
    console.print(table)
    console.print(labelling)


def import_(
    checkpoint: Annotated[Path, typer.Argument(help="File that another program wrote, or a folder of transformers.")],
    model: Annotated[
        str,
        typer.Option("--as", help="knet, queryinst, mask2former, maskrcnn, solo, decoupled-solo, solov2, ... -light."),
    ],
    out: Out,
    categories: Annotated[
        Path | None, typer.Option(help="COCO file whose categories, in the order of their ids, are the classes.")
    ] = None,
    arch: Annotated[str | None, typer.Option(help="Backbone, where its tensors do not tell.")] = None,
    norm_epsilon: Annotated[
        float | None, typer.Option(min=0, help="Of batch norms, where it was not 1e-5 (torchvision's COCO V1: 0).")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Settings that no tensor tells (see `models`).")] = None,
    set_: Overrides = None,
) -> None:
    """Make a run of a published checkpoint: names by an explicit table, sizes from the tensors or from --set.

    Tensors without a counterpart are listed by name; a file that does not fill the model is refused.
    """
    from ..pipeline.training.importing import Wishes, import_checkpoint

    wishes = Wishes(preset, set_ or [], arch, categories, norm_epsilon)
    found = import_checkpoint(checkpoint, model, out, wishes)
    card = found.card
    typer.echo(f"{found.taken:,} tensors are in {out}: {model} on {card.arch}, {card.num_classes} classes")
    for name in found.unknown:
        typer.echo(f"no counterpart here, left out: {name}", err=True)
    typer.echo(f"saliency-prompt predict {out} PHOTOS --out predictions.json")


def predict(
    run: RunFolder,
    photos: Annotated[str, typer.Argument(help="Folder, glob, text file of paths, COCO json, or bucket URL.")],
    out: Annotated[
        Path,
        typer.Option(
            help="COCO results to write; of a panoptic run its json, of a matting run a folder of alphas; with --text "
            "a folder for results and pictures."
        ),
    ],
    text: Annotated[
        list[str] | None, typer.Option(help="Of unilseg: what to segment, say 'all dogs'; may be given several times.")
    ] = None,
    overlays: Annotated[Path | None, typer.Option(help="Folder for pictures of them.")] = None,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Smallest score.")] = 0.05,
    root: Root = None,
    ids_of: Annotated[
        Path | None,
        typer.Option(
            help="COCO file whose image ids the results get, by file name; photographs it lacks are left out."
        ),
    ] = None,
    short_side: ShortSide = None,
    long_side: LongSide = None,
    threshold: Threshold = None,
    device: Device = "auto",
) -> None:
    """Find objects in photographs with a trained model, or what texts name. Exit code 3 if some could not be used."""
    if text:
        ask(run, photos, text, out, device)
        return
    from ..pipeline.training.find import Conditions
    from ..pipeline.training.predict import predict as find
    from ..stages.device import resolve_device

    skipped: list[str] = []
    count = find(
        run,
        photos,
        out,
        resolve_device(device),
        overlays=overlays,
        min_score=min_score,
        conditions=Conditions(short_side, long_side, threshold),
        root=root,
        ids_of=ids_of,
        skip=skipped.append,
    )
    typer.echo(f"wrote {out}: {count:,} objects")
    for line in skipped:
        typer.echo(line, err=True)
    raise typer.Exit(exits.SET_ASIDE if skipped else exits.DONE)


def kernels(
    run: RunFolder,
    images: Annotated[str, typer.Option(help="Photographs to look at.")],
    out: Annotated[Path, typer.Option(help="Picture to write.")],
    limit: Annotated[int, typer.Option(min=1, help="Photographs at most.")] = 5000,
    device: Device = "auto",
) -> None:
    """Draw where each query finds its objects, on average (Saliency Prompt, Figure 6), and say how they differ."""
    from ..pipeline.training.kernels import draw_kernels
    from ..stages.device import resolve_device

    typer.echo(json.dumps(draw_kernels(run, images, out, resolve_device(device), limit=limit), indent=2))


def contrast(
    run: RunFolder,
    photo: Annotated[str, typer.Argument(help="One photograph.")],
    out: Annotated[Path, typer.Option(help="Picture to write: png or jpg.")],
    most: Annotated[int, typer.Option(min=1, max=100, help="Instances to show, best first.")] = 8,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Smallest score.")] = 0.05,
    device: Device = "auto",
) -> None:
    """Draw what contrastmask sees in a photograph: activation map, lattice, keys, principal components of features."""
    from ..pipeline.training.contrast import contrast as draw
    from ..stages.device import resolve_device

    count = draw(run, photo, out, resolve_device(device), most=most, min_score=min_score)
    typer.echo(f"wrote {out}: {count:,} instances")


def fit_grid(
    gt: Annotated[Path, typer.Option(help="COCO annotations.")],
    short_side: Annotated[int, typer.Option(min=32, help="Shorter side of a training image, in pixels.")] = 800,
    long_side: Annotated[int, typer.Option(min=32, help="Upper bound of its longer side, in pixels.")] = 1333,
) -> None:
    """Read SOLO's grids and ranges from the sizes of a file's objects, with their histogram."""
    from ..pipeline.fit_grid import fit_grid_to

    fit = fit_grid_to(gt, short_side, long_side)
    typer.echo(fit.histogram())
    typer.echo(" ".join(f"--set '{one}'" for one in fit.settings().split()))


def curves(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of training runs.")],
    out: Annotated[Path, typer.Option(help="Picture to write: png, svg or pdf.")],
    metric: Annotated[list[str] | None, typer.Option(help="What to draw; may be given several times.")] = None,
) -> None:
    """Draw learning curves of training runs (also those of `densecl`) over each other."""
    from ..pipeline.curves import draw_curves, read_curves

    drawn = draw_curves({str(run): [read_curves(run)] for run in runs}, out, metric or [])
    typer.echo(f"wrote {out}: {', '.join(drawn)}")


def convert(
    kind: Annotated[str, typer.Argument(help="cityscapes, ctw1500, textdet (MMOCR's JSON) or voc (boxes).")],
    source: Annotated[Path, typer.Argument(help="Folder that the data set was unpacked into.")],
    out: Annotated[Path, typer.Argument(help="COCO file to write.")],
) -> None:
    """Write the annotations of another data set as a COCO file."""
    from ..pipeline.convert import convert as write

    images, annotations = write(kind, source, out)
    typer.echo(f"wrote {out}: {images:,} images, {annotations:,} annotations")
