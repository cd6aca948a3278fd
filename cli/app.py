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
    review,
    train,
    weights,
)
from .options import plain_console

LABEL, LOOK, DATA, TRAIN, CLUSTER = "Label", "Look", "Data sets", "Train", "Clusters"  # panels of the help

app = typer.Typer(
    name="saliency-prompt",
    help="Pseudo-labels for instance segmentation from unlabeled photographs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(rich_help_panel=LABEL)(generate.generate)
app.command("import-masks", rich_help_panel=LABEL)(generate.import_masks)
app.command(rich_help_panel=LABEL)(annotate.annotate)
app.command(rich_help_panel=LOOK)(annotate.score)
app.command(rich_help_panel=LABEL)(plan.plan)
app.command(rich_help_panel=LABEL)(operate.status)
app.command(rich_help_panel=LABEL)(operate.drain)
app.command(rich_help_panel=DATA)(dataset.verify)
app.command(rich_help_panel=DATA)(dataset.gc)
app.command(rich_help_panel=LOOK)(dataset.show)
app.command(rich_help_panel=LOOK)(report.report)
app.command(rich_help_panel=LOOK)(explore.explore)
app.command(rich_help_panel=LOOK)(review.review)
app.add_typer(export.app, name="export", rich_help_panel=DATA)
app.add_typer(derive.app, name="dataset", rich_help_panel=DATA)
app.command(rich_help_panel=LOOK)(evaluate.evaluate)
app.command(rich_help_panel=TRAIN)(train.train)
app.command(rich_help_panel=TRAIN)(train.pretrain)
app.command(rich_help_panel=TRAIN)(train.finetune)
app.command(rich_help_panel=TRAIN)(freesolo.freesolo)
app.command(rich_help_panel=TRAIN)(models.models)
app.command("import", rich_help_panel=TRAIN)(models.import_)
app.command(rich_help_panel=TRAIN)(models.predict)
app.command(rich_help_panel=TRAIN)(models.kernels)
app.command(rich_help_panel=TRAIN)(models.contrast)
app.command(rich_help_panel=TRAIN)(models.fit_grid)
app.command(rich_help_panel=TRAIN)(models.curves)
app.command(rich_help_panel=TRAIN)(models.convert)
app.add_typer(densecl.app, name="densecl", rich_help_panel=TRAIN)
app.add_typer(cluster.app, name="cluster", rich_help_panel=CLUSTER)
app.add_typer(config.app, name="config", rich_help_panel=LABEL)
app.add_typer(weights.app, name="weights", rich_help_panel=LABEL)
app.command(rich_help_panel=LABEL)(demo.demo)


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
