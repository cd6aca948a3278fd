"""What every configuration is made of, and which of its fields make it what it is.

A field may carry a mark: `Field(..., json_schema_extra=since("0.2"))`. Marks are part of the JSON schema that
`saliency-prompt config schema` prints.
"""

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

Precision = Literal["auto", "fp32", "bf16", "fp16"]
_Section = TypeVar("_Section", bound=BaseModel)
_Mark = dict[str, Any]  # pydantic's JsonDict

# Changes neither the result nor its meaning, or differs from machine to machine: no part of the identity.
FREE: _Mark = {"free": True}


class Section(BaseModel):
    """Base of all sections: frozen, and a misspelt key is an error rather than ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def since(version: str) -> _Mark:
    """Mark of a field (or section) that came with a version.

    While it has its default it is no part of the identity: what was made before it came can be resumed. Its default
    must therefore mean what the program did without it, and never change.
    """
    return {"since": version}


def auto(fact: str) -> _Mark:
    """Mark of a field whose default stands for what weights or hardware decide; `fact` names what that is."""
    return {"auto": fact}


def identity(config: BaseModel) -> dict[str, Any]:
    """What makes a configuration what it is: its values as JSON, less free fields and later ones at their default.

    Two runs of one identity, on the same inputs and weights, are the same run.
    """
    values: dict[str, Any] = config.model_dump(mode="json")
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if _mark(field, "free") or (_mark(field, "since") and _same(value, _default(field))):
            del values[name]
        elif isinstance(value, BaseModel):
            values[name] = identity(value)
    return values


def resolve(config: _Section, facts: Mapping[str, Any]) -> _Section:
    """The configuration with the facts in place of `auto` defaults; those without a fact stay."""

    def fill(field: FieldInfo, _: str) -> Any:
        fact = _mark(field, "auto")
        return facts.get(fact) if fact else None

    return _filled(config, fill)


def adopt(asked: _Section, stored: _Section) -> _Section:
    """The asked configuration with what it leaves to `auto` taken from the stored one."""
    found = dict(_automatic(stored))
    return _filled(asked, lambda field, path: found.get(path) if _mark(field, "auto") else None)


def _filled(config: _Section, fill: Any, prefix: str = "") -> _Section:
    update: dict[str, Any] = {}
    for name, field in type(config).model_fields.items():
        value, path = getattr(config, name), f"{prefix}{name}"
        if isinstance(value, BaseModel):
            inner = _filled(value, fill, f"{path}.")
            if inner is not value:
                update[name] = inner
        elif value == _default(field) and (new := fill(field, path)) is not None:
            update[name] = new
    return config.model_copy(update=update) if update else config


def _automatic(config: BaseModel, prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted names and values of all `auto` fields."""
    found: list[tuple[str, Any]] = []
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            found += _automatic(value, f"{prefix}{name}.")
        elif _mark(field, "auto"):
            found.append((f"{prefix}{name}", value))
    return found


def _mark(field: FieldInfo, name: str) -> Any:
    extra = field.json_schema_extra
    return extra.get(name) if isinstance(extra, dict) else None


def _same(value: Any, default: Any) -> bool:
    if isinstance(value, BaseModel) and isinstance(default, BaseModel):
        return identity(value) == identity(default)
    return bool(value == default)


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True)
