"""The command line: `saliency-prompt`. Commands are registered here and live in the other modules."""

import sys
from typing import Any

import typer
from rich.text import Text

from ..pipeline.process import tune_allocator
from ..schemas.errors import UserError
from ..version import __version__
from . import (
    annotate,
    cluster,
    config,
    dataset,
    demo,
    densecl,
    derive,
    evaluate,
    explore,
    export,
    freesolo,
    generate,
    models,
    operate,
    plan,
    report,
    train,
    weights,
)
from .options import plain_console

app = typer.Typer(
    name="saliency-prompt",
    help="Pseudo-labels for instance segmentation from unlabeled photographs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(generate.generate)
app.command("import-masks")(generate.import_masks)
app.command()(annotate.annotate)
app.command()(annotate.score)
app.command()(plan.plan)
app.command()(operate.status)
app.command()(operate.drain)
app.command()(dataset.verify)
app.command()(dataset.gc)
app.command()(dataset.show)
app.command()(report.report)
app.command()(explore.explore)
app.add_typer(export.app, name="export")
app.add_typer(derive.app, name="dataset")
app.command()(evaluate.evaluate)
app.command()(train.train)
app.command()(train.pretrain)
app.command()(train.finetune)
app.command()(freesolo.freesolo)
app.command()(models.models)
app.command("import")(models.import_)
app.command()(models.predict)
app.command()(models.kernels)
app.command()(models.contrast)
app.command()(models.fit_grid)
app.command()(models.curves)
app.command()(models.convert)
app.add_typer(densecl.app, name="densecl")
app.add_typer(cluster.app, name="cluster")
app.add_typer(config.app, name="config")
app.add_typer(weights.app, name="weights")
app.command()(demo.demo)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    del version


def main(arguments: list[str] | None = None) -> Any:
    """Entry point: a UserError is printed as one sentence, and the exit code is 2."""
    tune_allocator()  # before torch and numpy start threads, which would get memory arenas of their own
    try:
        return app(arguments)
    except UserError as error:
        plain_console(stderr=True).print(Text.assemble(("error: ", "bold red"), str(error)))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
