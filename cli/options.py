"""Options and output that several commands share."""

from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from ..pipeline.generate import Executor
    from ..schemas.labels.base import LabelConfig
    from ..store.reviewed import Reviewed


class Kept(StrEnum):
    """What readers take of a data set that was looked through."""

    NOT_REJECTED = "not-rejected"
    ACCEPTED = "accepted"


Preset = Annotated[
    str, typer.Option(help="Named configuration: saliency-prompt, freesolo, paper-literal or uplvp.", show_default=True)
]
ConfigFile = Annotated[str | None, typer.Option("--config", help="YAML file of config sections, on top of the preset.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override one field, e.g. --set nms.max_masks=50; may be repeated.")
]
Weights = Annotated[
    str | None, typer.Option(help="Weights file, or a registered name (see `weights list`), lab-color or random.")
]
LabelPreset = Annotated[
    str | None,
    typer.Option(help="Named configuration: saliency-prompt (the default), freesolo, paper-literal or uplvp."),
]
LabelledBy = Annotated[
    str | None,
    typer.Option(
        "--producer",
        help="What labels: saliency (the default), merge, ncut, random, or detector (--model); see `models`.",
    ),
]
Model = Annotated[
    str | None, typer.Option(help="Folder of a training run: its model labels, instead of saliency.", metavar="RUN")
]
From = Annotated[
    str | None,
    typer.Option("--from", metavar="DATASET", help="Label the photographs of this complete data set anew."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:INDEX.")]
Ray = Annotated[
    str | None,
    typer.Option(metavar="auto|local|HOST:PORT", help="Run on Ray: join a cluster, or start Ray on this machine."),
]
GpusPerWorker = Annotated[
    float | None,
    typer.Option(min=0, help="With --ray: GPUs of a worker; 0 for CPU workers (with --device cpu)."),
]
CpusPerWorker = Annotated[int, typer.Option(min=1, help="With --ray: CPU cores of a worker.")]
MinWorkers = Annotated[int, typer.Option(min=1, help="With --ray: workers asked for at once.")]
MaxWorkers = Annotated[
    int | None,
    typer.Option(min=1, help="With --ray: grow up to so many as there is room; by default the minimum."),
]
Photos = Annotated[
    str, typer.Argument(help="Folder, glob, video, text file of paths, COCO json (its images list), or bucket URL.")
]
PhotosOrNone = Annotated[
    str | None,
    typer.Argument(
        help="Folder, glob, video, text file of paths, COCO json (its images list), or bucket URL. With --from: the "
        "folder or URL that the photographs lie in now, if they have moved."
    ),
]
Root = Annotated[str | None, typer.Option(help="Folder or URL that names in a COCO json are relative to.")]
Every = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Take every n-th frame of a video or of the videos in a folder; of a folder of photographs every n-th.",
    ),
]
NoFollowLinks = Annotated[
    bool,
    typer.Option(
        "--no-follow-links",
        help="Set files aside that links in a folder lead to elsewhere: for folders that strangers can write to.",
    ),
]
Keep = Annotated[
    Kept | None,
    typer.Option(
        "--reviewed",
        help="Heed the verdicts of `review`: leave out what was rejected, or take what was accepted alone.",
    ),
]
Verdicts = Annotated[
    str | None, typer.Option(metavar="FILE", help="File of verdicts; by default DATASET.verdicts.jsonl beside DATASET.")
]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")]
Host = Annotated[
    str,
    typer.Option(help="Who may connect: this machine alone, or with 0.0.0.0 all who reach it. There is no password."),
]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(help="A further name that this machine is reached by, such as that of a proxy; may be repeated."),
]
DatasetUrl = Annotated[str, typer.Argument(metavar="DATASET", help="Folder or bucket URL of a data set.")]


def executor(
    ray: str | None, device: str, gpus: float | None, cpus: int, min_workers: int, max_workers: int | None
) -> "AbstractContextManager[Executor | None]":
    """Where to compute: on the Ray that was named, else (None) in this process."""
    if ray is None:
        return nullcontext()
    from ..cluster.executor import RayExecutor
    from ..schemas.cluster import make_workers

    cpu = device == "cpu"
    gpus = float(not cpu) if gpus is None else gpus
    return RayExecutor(ray, make_workers(gpus, cpus, min_workers, max_workers), cpu=cpu)


def label_config(
    model: str | None,
    weights: str | None,
    preset: str | None,
    file: str | None,
    overrides: list[str] | None,
    producer: str | None = None,
) -> "LabelConfig":
    """The configuration of what labels: the producer that is named, a trained model if there is one, else saliency."""
    from ..schemas.errors import UserError
    from ..schemas.registry import load_label_config

    if model is not None and weights is not None:
        raise UserError("--weights are those of saliency's backbone, and --model has its own: leave one of them out.")
    if producer == "imported":
        raise UserError("Masks that are there already come in with `import-masks`.")
    if producer not in (None, "detector") and model is not None:
        raise UserError(f"--model labels with the model, not with {producer}: leave one of them out.")
    producer = producer or ("saliency" if model is None else "detector")
    return load_label_config(producer, preset, file, with_weights(overrides, weights))


def with_weights(overrides: list[str] | None, weights: str | None) -> list[str]:
    """The overrides of `--set` with that of `--weights`."""
    return [*(overrides or []), *([f"features.weights={weights!r}"] if weights is not None else [])]


def reviewed_by(url: str, keep: Kept | None, verdicts: str | None, tags: Collection[str] = ()) -> "Reviewed | None":
    """What people let pass of a data set; None if nobody asks. A file or tags alone ask for what was not rejected."""
    from ..store.dataset import Dataset
    from ..store.reviewed import Reviewed

    if keep is None and verdicts is None and not tags:
        return None
    return Reviewed.open(Dataset.open(url), "not-rejected" if keep is None else keep.value, verdicts, tags)


def plain_console(*, stderr: bool = False) -> Console:
    """A console that prints what it is given: no wrapping, no colours by pattern, no markup in file names."""
    return Console(stderr=stderr, soft_wrap=True, highlight=False, markup=False, emoji=False)


def tell_address(url: str) -> None:
    """Where a local page is."""
    plain_console(stderr=True).print(f"open {url} (Ctrl-C ends it)")


ShortSide = Annotated[
    int | None, typer.Option(min=32, help="Shorter side at which a model is used, in pixels; else as it was trained.")
]
LongSide = Annotated[int | None, typer.Option(min=32, help="Upper bound of the longer side, in pixels.")]
Threshold = Annotated[
    float | None, typer.Option(min=0, max=1, help="Probability above which a pixel is in a mask; else as trained.")
]
