"""`demo`: the main job on five photographs, without a network."""

import shutil
import threading
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ..schemas.registry import load_label_config
from ..store.registered import WEIGHTS
from ..store.weights import obtainable
from .options import Device, Weights, plain_console

MODERN = "dinov2-s14-focus"


def demo(
    out: Annotated[str, typer.Option(help="Folder for photographs, data set and overlays; made anew.")] = "demo",
    weights: Weights = None,
    device: Device = "auto",
) -> None:
    """Label five photographs that ship with scikit-image, and draw what was found.

    By merging regions, six masks each: of DINOv2's features where the extra dinov2 is installed, else of colour and
    texture. With --weights, by saliency of these.
    """
    from ..pipeline.demo import write_photographs
    from ..pipeline.generate import Job, generate
    from ..pipeline.progress import Display
    from ..pipeline.show import draw_dataset
    from ..pipeline.sources import open_source
    from ..stages.device import resolve_device
    from ..stages.overlay import PLAIN, Style

    folder = Path(out)
    photographs = write_photographs(folder / "photos")
    for name in ("dataset", "overlays"):
        shutil.rmtree(folder / name, ignore_errors=True)
    console = plain_console()
    style = PLAIN
    if weights is None:
        preset = "merge" if obtainable(WEIGHTS[MODERN]) else "merge-color"
        settings = load_label_config("merge", preset, overrides=["merge.max_masks=6"])  # what an eye can tell apart
        style = Style(labels=0)  # its scores are an order alone
    else:
        settings = load_label_config("saliency", overrides=[f"features.weights={weights!r}"])
    start = time.perf_counter()
    with Display(console) as display:
        job = Job(str(folder / "dataset"), settings, resolve_device(device))
        dataset, report = generate(open_source(str(photographs)), job, display, threading.Event())
    seconds = time.perf_counter() - start
    assert report.seal is not None
    drawn = draw_dataset(dataset, str(folder / "overlays"), limit=5, style=style)
    table = Table("images", "masks", "seconds")
    table.add_row(str(report.seal.counts.images), str(report.seal.counts.masks), f"{seconds:.1f}")
    console.print(table)
    console.print("look at:")
    for path in drawn:
        console.print(f"  {path}")
