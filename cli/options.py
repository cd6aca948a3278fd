"""Options and output that several commands share."""

from typing import Annotated

import typer
from rich.console import Console

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
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:INDEX.")]
DatasetUrl = Annotated[str, typer.Argument(metavar="DATASET", help="Folder or bucket URL of a data set.")]


def plain_console(*, stderr: bool = False) -> Console:
    """A console that prints what it is given: no wrapping, no colours by pattern, no markup in file names."""
    return Console(stderr=stderr, soft_wrap=True, highlight=False, markup=False, emoji=False)
