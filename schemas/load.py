"""From a preset, a YAML file and `--set` overrides to one validated configuration."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from .errors import UserError
from .labels.saliency import PRESETS, Config
from .yaml_text import MAX_DEPTH, describe_trouble, parse_yaml, read_yaml

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

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
) -> _Settings:
    """`load_config` for any configuration of sections with fields, and its presets."""
    if preset not in presets:
        raise UserError(f"There is no preset {preset!r}: take one of {', '.join(presets)}.")
    values: dict[str, Any] = {}
    _merge(values, presets[preset])
    if file is not None:
        _merge(values, _read_yaml(file))
    for item in overrides:
        key, sep, text = item.partition("=")
        if not sep:
            raise UserError(f"--set takes section.field=value, for instance {valid_keys(model)[0]}=..., not {item!r}.")
        if key.count(".") > MAX_DEPTH:
            raise UserError(f"There is no config key {_brief(key)}: see `saliency-prompt config show`.")
        _merge(values, _nested(key.strip().split("."), _parse_value(key, text)))
    return parse_settings(model, values)


def parse_config(values: Mapping[str, Any]) -> Config:
    """Validate a plain mapping; UserError in one line for all that is wrong."""
    return parse_settings(Config, values)


def parse_settings(model: type[_Settings], values: Mapping[str, Any]) -> _Settings:
    """`parse_config` for any configuration."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError(_explain(error, model)) from None


def valid_keys(model: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """All dotted keys of the configuration, in order."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            keys += valid_keys(kind, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def _read_yaml(file: str) -> Mapping[str, Any]:
    try:
        loaded = read_yaml(file)
    except OSError as error:
        raise UserError(f"The config file {file} cannot be read ({error.strerror}): check the path.") from None
    except yaml.YAMLError as error:
        raise UserError(f"The config file {file} is not valid YAML: {describe_trouble(error)}.") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict) or not all(isinstance(v, dict) for v in loaded.values()):
        raise UserError(
            f"The config file {file} must hold sections with fields below them: see `saliency-prompt config show`."
        )
    return loaded


def _parse_value(key: str, text: str) -> Any:
    try:
        return parse_yaml(text)
    except yaml.YAMLError:
        raise UserError(
            f"--set {key}: {_brief(text)} is not a value; quote it if it holds special characters."
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


def _explain(error: ValidationError, model: type[BaseModel]) -> str:
    """All that is wrong, in one line."""
    said = list(dict.fromkeys(_sentence(one, model) for one in error.errors()))
    return said[0] if len(said) == 1 else f"{len(said)} things in the configuration are wrong. {' '.join(said)}"


def _sentence(found: "ErrorDetails", model: type[BaseModel]) -> str:
    place = ".".join(str(part) for part in found["loc"])
    if found["type"] == "extra_forbidden":
        nearest = _nearest_key(place, model)
        return f"There is no config key {place!r}: did you mean {nearest!r}? (`saliency-prompt config show` lists all.)"
    if found["type"] == "value_error":
        return f"{found['ctx']['error']}."
    message = found["msg"][0].lower() + found["msg"][1:]
    return f"The config value {place} = {_brief(found['input'])} is not valid: {message}{_unit(place, model)}."


def _brief(value: object) -> str:
    said = repr(value)
    return said if len(said) <= 80 else f"{said[:80]}..."


def _nearest_key(place: str, model: type[BaseModel]) -> str:
    keys = valid_keys(model)
    field = place.rpartition(".")[2]
    if same := [key for key in keys if key.rpartition(".")[2] == field]:  # the right field in the wrong section
        return difflib.get_close_matches(place, same, n=1, cutoff=0.0)[0]
    if "." not in place:
        keys = [*model.model_fields, *keys]
    if elsewhere := [k for k in keys if k.rpartition(".")[2] == place.rpartition(".")[2]]:
        return difflib.get_close_matches(place, elsewhere, n=1, cutoff=0.0)[0]
    close = difflib.get_close_matches(place, keys, n=1, cutoff=0.5)
    if close:
        return close[0]
    by_field = {k.rpartition(".")[2]: k for k in keys}  # perhaps the right field in the wrong section
    return by_field[difflib.get_close_matches(place.rpartition(".")[2], by_field, n=1, cutoff=0.0)[0]]


def _unit(place: str, root: type[BaseModel]) -> str:
    """The field's own sentence, so that the user sees unit and purpose beside the error."""
    model: Any = root
    for part in place.split("."):
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            return ""
        if field.description:
            return f" ({part}: {field.description.rstrip('.')})"
        model = field.annotation
    return ""
