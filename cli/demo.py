"""`demo`: the main job on five photographs, without a network."""

import shutil
import threading
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ..schemas.load import load_config
from .options import Device, Weights, plain_console


def demo(
    out: Annotated[str, typer.Option(help="Folder for photographs, data set and overlays; made anew.")] = "demo",
    weights: Weights = "lab-color",
    device: Device = "auto",
) -> None:
    """Label five photographs that ship with scikit-image, and draw what was found."""
    from ..pipeline.demo import write_photographs
    from ..pipeline.generate import Job, generate
    from ..pipeline.progress import Display
    from ..pipeline.show import draw_dataset
    from ..pipeline.sources import open_source
    from ..stages.device import resolve_device

    folder = Path(out)
    photographs = write_photographs(folder / "photos")
    for name in ("dataset", "overlays"):
        shutil.rmtree(folder / name, ignore_errors=True)
    console = plain_console()
    settings = load_config(overrides=[f"features.weights={weights!r}"])
    start = time.perf_counter()
    with Display(console) as display:
        job = Job(str(folder / "dataset"), settings, resolve_device(device))
        dataset, report = generate(open_source(str(photographs)), job, display, threading.Event())
    seconds = time.perf_counter() - start
    assert report.seal is not None
    drawn = draw_dataset(dataset, str(folder / "overlays"), limit=5)
    table = Table("images", "masks", "seconds")
    table.add_row(str(report.seal.counts.images), str(report.seal.counts.masks), f"{seconds:.1f}")
    console.print(table)
    console.print("look at:")
    for path in drawn:
        console.print(f"  {path}")
