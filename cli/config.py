"""`config show|schema`."""

import json
from typing import Annotated

import typer
import yaml

from ..schemas.registry import PRODUCERS, find_producer, load_label_config
from .options import ConfigFile, LabelPreset, Overrides

app = typer.Typer(help="The configuration: its values and its JSON schema.", no_args_is_help=True)


Producer = Annotated[str, typer.Option(help=f"What labels: {' or '.join(PRODUCERS)}.")]


@app.command()
def show(
    preset: LabelPreset = None, config: ConfigFile = None, set_: Overrides = None, producer: Producer = "saliency"
) -> None:
    """Print the configuration that these options make, as YAML that --config takes."""
    values = load_label_config(producer, preset, config, set_ or []).model_dump(mode="json")
    typer.echo(yaml.safe_dump(values, sort_keys=False), nl=False)


@app.command()
def schema(producer: Producer = "saliency") -> None:
    """Print the JSON schema: every field with its reason, unit and range."""
    typer.echo(json.dumps(find_producer(producer).config.model_json_schema(), indent=2))
