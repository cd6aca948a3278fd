"""`config show|schema`: every configuration by the name of what it configures."""

import json
from typing import TYPE_CHECKING, Annotated

import typer
import yaml

from ..schemas.configurations import configurations
from ..schemas.errors import UserError
from ..schemas.registry import PRODUCERS, load_label_config
from ..schemas.training.densecl import load_densecl_config
from ..schemas.training.registry import MODELS, load_pretraining_config, load_training_config
from ..schemas.training.unilseg import load_unilseg_config
from .options import ConfigFile, Overrides

if TYPE_CHECKING:
    from ..schemas.section import Section

app = typer.Typer(help="The configuration of any command: its values and its JSON schema.", no_args_is_help=True)

What = Annotated[
    str,
    typer.Argument(
        metavar="[WHAT]",
        help=f"What labels ({', '.join(PRODUCERS)}), or is trained ({', '.join(MODELS)}, unilseg, densecl).",
    ),
]
Producer = Annotated[str | None, typer.Option(help="The same as WHAT.", hidden=True)]
Pretrain = Annotated[bool, typer.Option("--pretrain", help="Of a model: that of `pretrain`.")]
Preset = Annotated[str | None, typer.Option(help="Named configuration; by default that of the command.")]


@app.command()
def show(
    what: What = "saliency",
    preset: Preset = None,
    config: ConfigFile = None,
    set_: Overrides = None,
    pretrain: Pretrain = False,
    producer: Producer = None,
) -> None:
    """Print the configuration that these options make, as YAML that --config takes."""
    values = _load(producer or what, preset, config, set_ or [], pretrain).model_dump(mode="json")
    typer.echo(yaml.safe_dump(values, sort_keys=False), nl=False)


@app.command()
def schema(what: What = "saliency", pretrain: Pretrain = False, producer: Producer = None) -> None:
    """Print the JSON schema: every field with its reason, unit and range."""
    typer.echo(json.dumps(_class_of(producer or what, pretrain).model_json_schema(), indent=2))


def _load(what: str, preset: str | None, file: str | None, overrides: list[str], pretrain: bool) -> "Section":
    _check(what, pretrain)
    if what in PRODUCERS:
        return load_label_config(what, preset, file, overrides)
    if what == "unilseg":
        return load_unilseg_config(preset, file, overrides)
    if what == "densecl":
        return load_densecl_config(preset or "densecl", file, overrides)
    load = load_pretraining_config if pretrain else load_training_config
    return load(what, preset, file, overrides)


def _class_of(what: str, pretrain: bool) -> "type[Section]":
    _check(what, pretrain)
    if pretrain:
        return type(load_pretraining_config(what))
    return next(one.model for one in configurations() if one.shown == what)


def _check(what: str, pretrain: bool) -> None:
    known = [one.shown for one in configurations() if " " not in one.shown]
    if what not in known:
        raise UserError(f"There is no configuration of {what!r}: take one of {', '.join(known)}.")
    if pretrain and what not in MODELS:
        raise UserError(f"--pretrain is of models that take prompts, and {what} is none: leave it out.")
