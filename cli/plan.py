"""`plan`: what a run would take, before anything starts."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ..schemas.load import load_config
from .options import (
    ConfigFile,
    Device,
    Every,
    NoFollowLinks,
    Overrides,
    Photos,
    Preset,
    Root,
    Weights,
    plain_console,
    with_weights,
)

if TYPE_CHECKING:
    from ..pipeline.estimate import Estimate


def plan(
    photos: Photos,
    out: Annotated[
        str, typer.Option(help="The data set: a folder or a bucket URL. What it holds already is not counted.")
    ],
    workers: Annotated[int, typer.Option(min=1, help="Equal workers that share the shards.")] = 1,
    price_per_gpu_hour: Annotated[
        float | None, typer.Option(min=0, help="Price of one worker for an hour, in any currency.")
    ] = None,
    seconds_per_image: Annotated[
        float | None,
        typer.Option(min=1e-6, help="Time of a worker for an image, if measured on its hardware and not to be here."),
    ] = None,
    weights: Weights = None,
    preset: Preset = "saliency-prompt",
    config: ConfigFile = None,
    set_: Overrides = None,
    root: Root = None,
    every: Every = None,
    no_follow_links: NoFollowLinks = False,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a run takes: shards, bytes, worker minutes, time, price. Calibrates on some images; writes nothing."""
    settings = load_config(preset, config, with_weights(set_, weights))

    from ..pipeline.estimate import estimate, forecast
    from ..pipeline.labeller import Labeller
    from ..pipeline.progress import duration
    from ..pipeline.sources import open_source
    from ..stages.device import resolve_device

    where = resolve_device(device)
    source = open_source(photos, root, follow_links=not no_follow_links, every=every)
    found = estimate(source, settings, Labeller(settings).load(), where)
    run = forecast(found, out, workers=workers, seconds_per_image=seconds_per_image, price=price_per_gpu_hour)
    if as_json:
        numbers = {key: value for key, value in asdict(found).items() if key != "config"}
        typer.echo(json.dumps({"estimate": {**numbers, "device": str(where)}, "run": asdict(run)}, indent=2))
        return
    console = plain_console()
    print_estimate(console, out, found)
    if run.shards_left < found.n_shards:
        console.print(f"  {run.images_left:,} images in {run.shards_left:,} shards are left to do")
    if not run.shards_left:
        return
    console.print(f"  {run.objects_out:,} objects to write")
    basis = "as given" if seconds_per_image else f"as on this machine's {where}"
    console.print(f"  about {run.worker_seconds / 60:,.1f} worker minutes ({basis})")
    price = "" if run.cost is None else f", for {run.cost:,.2f}"
    console.print(f"  about {duration(run.seconds)} on {workers} workers{price}")
    if run.shards_left < workers:
        console.print(f"  {workers - run.shards_left} workers would be idle: take fewer, or a smaller plan.shard_size")
    if not seconds_per_image and where.type == "cpu" and price_per_gpu_hour is not None:
        console.print("  this machine has no GPU: give --seconds-per-image of your GPU for a useful price")


def print_estimate(console: Console, out: str, plan: "Estimate") -> None:
    """What would be read and written, and how long that takes here."""
    from ..pipeline.progress import duration

    console.print(f"would write {out}")
    console.print(f"  {plan.n_images:,} images in {plan.n_shards:,} shards of {plan.config.plan.shard_size:,}")
    console.print(f"  {plan.config.words}, batches of {plan.config.batch_size}")
    console.print(f"  about {plan.bytes_in / 1e6:,.1f} MB to read and {plan.bytes_out / 1e6:,.1f} MB to write")
    console.print(f"  about {duration(plan.seconds)} on this machine (calibrated on {plan.sampled} images)")
    if plan.rotated_in_sample:
        done = "are turned" if plan.config.decode.exif == "apply" else "are left lying"
        console.print(f"  {plan.rotated_in_sample} of these {plan.sampled} images {done}: their EXIF says rotated")
    if plan.quarantined_in_sample:
        console.print(f"  {plan.quarantined_in_sample} of these {plan.sampled} images cannot be used as they are")
