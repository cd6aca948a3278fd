"""`weights list|fetch|verify`."""

from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

from ..schemas.errors import UserError
from ..store import weights as registry
from ..store.registered import WEIGHTS, WeightsEntry
from . import exits

app = typer.Typer(help="Registered backbone weights.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="A registered name.")]


@app.command("list")
def list_() -> None:
    """List the registered names, whether their files are here, and under which terms."""
    for entry in WEIGHTS.values():
        if entry.computed:
            state = "built in"
        elif not registry.obtainable(entry):
            state = f"extra {entry.extra}"
        else:
            missing = (
                "to get by hand" if entry.gate else f"{entry.size / 1e6:.0f} MB to fetch" if entry.size else "to fetch"
            )
            state = "here" if registry.cached_path(entry).is_file() else missing
        typer.echo(f"{entry.name:24} {entry.arch:32} {state:16} {entry.note}")
        typer.echo(f"{'':24} licence: {entry.licence or 'MIT, as this program'}")


@app.command()
def fetch(name: Name) -> None:
    """Download the file of a registered name, resuming where an earlier download stopped, and check its hash."""
    entry = _entry(name)
    with Progress(BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=entry.size or None)
        path = registry.fetch(entry, progress=lambda done, total: bar.update(task, completed=done, total=total or None))
    typer.echo(path)


@app.command()
def verify(name: Name) -> None:
    """Check the hash of a registered file. Exit code 1 if it is missing or wrong."""
    entry = _entry(name)
    path = registry.cached_path(entry)
    if registry.verify(entry):
        typer.echo(f"{path} is as registered")
        return
    typer.echo(f"{path} is {'not as registered' if path.is_file() else 'missing'}: run `weights fetch {name}`")
    raise typer.Exit(exits.FOUND_WORSE)


def _entry(name: str) -> WeightsEntry:
    entry = WEIGHTS.get(name)
    if entry is None or entry.computed:
        files = ", ".join(e.name for e in WEIGHTS.values() if not e.computed)
        raise UserError(f"{name!r} is not a registered file: take one of {files}.")
    return entry
