"""`status` and `drain`: watching and stopping a run from anywhere, through its data set alone."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from .options import DatasetUrl, plain_console

if TYPE_CHECKING:
    from ..pipeline.runs import RunState
    from ..pipeline.status import Status
    from ..store.dataset import Dataset


def status(
    dataset: DatasetUrl,
    quarantined: Annotated[int, typer.Option(help="List at most so many quarantined images.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again until the data set is sealed.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="With --watch: seconds between looks.")] = 5.0,
) -> None:
    """Show what is done, from the data set alone: of a running, dead or finished job."""
    from ..pipeline.runs import runs
    from ..pipeline.status import quarantined_images
    from ..pipeline.status import status as read_status
    from ..store.dataset import Dataset

    opened = Dataset.open(dataset)
    if watch:
        _watch(opened, every)
        return
    now = read_status(opened)
    states = runs(opened)
    counts = now.counts
    listed, reasons = quarantined_images(opened, quarantined) if counts.quarantined else ([], {})
    if as_json:
        state = {
            "url": now.url,
            "images": now.n_images,
            "shards": now.n_shards,
            "shards_done": now.shards_done,
            "counts": counts.model_dump(),
            "quarantine_reasons": dict(reasons),
            "root_hash": now.root_hash,
            "producer": opened.card.producer,
            "parent": opened.card.parent,
            "runs": [{**asdict(run), "alive": run.alive(time.time())} for run in states],
        }
        typer.echo(json.dumps(state, indent=2))
        return
    console = plain_console()
    console.print(f"{now.url}")
    console.print(f"  shards     {now.shards_done:,} of {now.n_shards:,}")
    console.print(
        f"  images     {counts.images:,} of {now.n_images:,}: {counts.ok:,} with masks, {counts.empty:,} without"
    )
    console.print(f"  masks      {counts.masks:,}")
    console.print(f"  weights    {opened.card.weights_name}")
    for parent in opened.card.parents:
        console.print(f"  made from  {parent}")
    console.print(f"  sealed     {now.root_hash or 'no'}")
    if now.trouble:
        console.print(f"  damaged    the seal {now.trouble}: run `generate` again")
    for line in _describe(states, now):
        console.print(f"  run        {line}")
    if counts.quarantined:
        console.print(
            f"  quarantined {counts.quarantined:,}: {', '.join(f'{n} {r}' for r, n in sorted(reasons.items()))}"
        )
        for image in listed:
            console.print(f"    {image.file_name}: {image.reason}: {image.error}")


def drain(dataset: DatasetUrl) -> None:
    """Let every run on a data set finish the shards in flight and start no more; run `generate` again to resume."""
    from ..pipeline.drain import request_drain
    from ..pipeline.runs import runs
    from ..store.dataset import Dataset

    opened = Dataset.open(dataset)
    if opened.sealed:
        typer.echo("nothing to drain: the data set is complete")
        return
    alive = [run for run in runs(opened) if run.alive(time.time())]
    request_drain(opened)
    if alive:
        typer.echo("asked the run to drain: see it end with `saliency-prompt status --watch`")
    else:
        typer.echo("no run seems to be alive; a run that starts later is not affected")


def _watch(opened: "Dataset", every: float) -> None:
    """One line whenever something changed, until the data set is sealed."""
    from ..pipeline.runs import runs
    from ..pipeline.status import status as read_status

    console = plain_console()
    shown = ""
    while True:
        now = read_status(opened)
        line = (
            f"{now.shards_done:,} of {now.n_shards:,} shards, {now.counts.images:,} images, "
            f"{now.counts.masks:,} masks, {now.counts.quarantined:,} quarantined"
        )
        line = "; ".join([line, *_describe(runs(opened), now)])
        if line != shown:
            console.print(f"{time.strftime('%H:%M:%S')} {line}")
            shown = line
        if now.root_hash:
            console.print(f"sealed, root hash {now.root_hash}")
            return
        time.sleep(every)


def _describe(states: "list[RunState]", now: "Status") -> Iterator[str]:
    """A line for each run: how it goes on, or how it ended."""
    from ..pipeline.progress import duration

    clock = time.time()
    rate = sum(run.images_per_second for run in states if run.alive(clock))
    for run in states:
        parts = [run.run_id]
        if run.alive(clock):
            parts.append(f"{run.workers} worker{'s' * (run.workers != 1)}, {run.images_per_second:.1f} images/s")
            if rate:
                parts.append(f"about {duration((now.n_images - now.counts.images) / rate)} left")
        elif run.ended:
            parts.append(run.ended)
        else:
            parts.append(f"gave no sign of life for {duration(clock - run.last_sign)}: run generate again to resume")
        if run.workers_lost:
            parts.append(f"{run.workers_lost} workers lost")
        if run.shards_failed:
            parts.append(f"{run.shards_failed} shards failed")
        yield ", ".join(parts)
