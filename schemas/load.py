"""From a preset, a YAML file and `--set` overrides to one validated configuration."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from .errors import UserError
from .explain import Places, brief, explain, valid_keys
from .labels.saliency import PRESETS, Config
from .yaml_text import MAX_DEPTH, describe_trouble, parse_yaml, read_yaml_with_lines

SHOW = "saliency-prompt config show"
_Settings = TypeVar("_Settings", bound=BaseModel)


def load_config(preset: str = "saliency-prompt", file: str | None = None, overrides: Iterable[str] = ()) -> Config:
    """Build the configuration: defaults, then the preset, then the file, then `section.field=value` overrides.

    Raises UserError for an unknown preset, key or value, naming the nearest valid key.
    """
    return load_settings(Config, PRESETS, preset, file, overrides)


def load_settings(
    model: type[_Settings],
    presets: Mapping[str, Mapping[str, Any]],
    preset: str,
    file: str | None,
    overrides: Iterable[str],
    shown_by: str = SHOW,
) -> _Settings:
    """`load_config` for any configuration of sections with fields, and its presets.

    `shown_by` is the command that shows this configuration, for who has misspelt a key.
    """
    if preset not in presets:
        raise UserError(f"There is no preset {preset!r}: take one of {', '.join(presets)}.")
    values: dict[str, Any] = {}
    _merge(values, presets[preset])
    places: dict[str, str] = {}
    if file is not None:
        loaded, lines = _read_yaml(file)
        _merge(values, loaded)
        places = {key: f"{file}, line {line}" for key, line in lines.items()}
    for item in overrides:
        key, sep, text = item.partition("=")
        if not sep:
            raise UserError(f"--set takes section.field=value, for instance {valid_keys(model)[0]}=..., not {item!r}.")
        if key.count(".") > MAX_DEPTH:
            raise UserError(f"There is no config key {brief(key)}: see `{shown_by}`.")
        places[key.strip()] = "--set"
        _merge(values, _nested(key.strip().split("."), _parse_value(key, text)))
    return parse_settings(model, values, places, shown_by)


def parse_config(values: Mapping[str, Any]) -> Config:
    """Validate a plain mapping; UserError in one line for all that is wrong."""
    return parse_settings(Config, values)


def parse_settings(
    model: type[_Settings], values: Mapping[str, Any], places: Places | None = None, shown_by: str = SHOW
) -> _Settings:
    """`parse_config` for any configuration; `places` says where keys were given."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError(explain(error, model, places or {}, shown_by)) from None


def _read_yaml(file: str) -> tuple[Mapping[str, Any], dict[str, int]]:
    try:
        loaded, lines = read_yaml_with_lines(file)
    except OSError as error:
        raise UserError(f"The config file {file} cannot be read ({error.strerror}): check the path.") from None
    except yaml.YAMLError as error:
        raise UserError(f"The config file {file} is not valid YAML: {describe_trouble(error)}.") from None
    if loaded is None:
        return {}, {}
    if not isinstance(loaded, dict) or not all(isinstance(v, dict) for v in loaded.values()):
        raise UserError(
            f"The config file {file} must hold sections with fields below them: see `saliency-prompt config show`."
        )
    return loaded, lines


def _parse_value(key: str, text: str) -> Any:
    try:
        return parse_yaml(text)
    except yaml.YAMLError:
        raise UserError(
            f"--set {key}: {brief(text)} is not a value; quote it if it holds special characters."
        ) from None


def _nested(path: list[str], value: Any) -> dict[str, Any]:
    for part in reversed(path):
        value = {part: value}
    assert isinstance(value, dict)
    return value


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(into.setdefault(key, {}), dict):
            _merge(into[key], value)
        else:
            into[key] = value
