"""`config show|schema`."""

import json

import typer
import yaml

from ..schemas.labels.saliency import Config
from ..schemas.load import load_config
from .options import ConfigFile, Overrides, Preset

app = typer.Typer(help="The configuration: its values and its JSON schema.", no_args_is_help=True)


@app.command()
def show(preset: Preset = "saliency-prompt", config: ConfigFile = None, set_: Overrides = None) -> None:
    """Print the configuration that these options make, as YAML that --config takes."""
    values = load_config(preset, config, set_ or []).model_dump(mode="json")
    typer.echo(yaml.safe_dump(values, sort_keys=False), nl=False)


@app.command()
def schema() -> None:
    """Print the JSON schema: every field with its reason, unit and range."""
    typer.echo(json.dumps(Config.model_json_schema(), indent=2))
