"""What is wrong in a configuration, said to its user: every mistake at once, where it stands, and what is right."""

import difflib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

# Dotted keys to where they were given, for instance "c.yaml, line 3"
Places = Mapping[str, str]

# What a value must be, by pydantic's type of error; the braces hold its context.
_WANTED = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": "must be a section with fields",
    "enum": "must be {expected}",
    "finite_number": "must be a finite number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be {ge} or more",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "int_type": "must be a whole number",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be {le} or less",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
    "model_attributes_type": "must be a section with fields",
    "model_type": "must be a section with fields",
    "multiple_of": "must be a multiple of {multiple_of}",
    "none_required": "must be null",
    "string_pattern_mismatch": "must look like {pattern}",
    "string_too_long": "must have {max_length} characters or fewer",
    "string_too_short": "must have {min_length} characters or more",
    "string_type": "must be text: quote it",
    "too_long": "must have {max_length} values or fewer",
    "too_short": "must have {min_length} values or more",
    "tuple_type": "must be a list",
}


def explain(error: ValidationError, model: type[BaseModel], places: Places, shown_by: str) -> str:
    """All that is wrong, in one line. `shown_by`: the command that shows the configuration as it is."""
    found = error.errors()
    inner = {one["loc"][:end] for one in found for end in range(1, len(one["loc"]))}
    # What is wrong inside a value is said, and not what follows from it for the whole.
    causes = [one for one in found if one["loc"] not in inner]
    said = list(dict.fromkeys(_sentence(one, model, places, shown_by) for one in causes))
    return said[0] if len(said) == 1 else f"{len(said)} things in the configuration are wrong. {' '.join(said)}"


def valid_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """All dotted keys of a configuration, in order."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            keys += valid_keys(kind, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def brief(value: object) -> str:
    """A value, however long, as part of a sentence."""
    said = repr(value)
    return said if len(said) <= 80 else f"{said[:80]}..."


def _sentence(found: "ErrorDetails", model: type[BaseModel], places: Places, shown_by: str) -> str:
    key = ".".join(str(part) for part in found["loc"])
    given = _place(key, places)
    start: Callable[[str], str] = (lambda words: f"{given}: {words}") if given else _capital
    if found["type"] == "extra_forbidden":
        return start(f"there is no config key {key!r}: {_meant(key, found['input'], model)} (`{shown_by}` lists all.)")
    if found["type"] == "missing":
        return start(f"{key} is missing: give it{_unit(key, model)}.")
    if found["type"] == "value_error":
        return start(f"{found['ctx']['error']}.")
    wanted = _WANTED.get(found["type"], "does not fit").format_map(found.get("ctx", {}))
    return start(f"the config value {key} = {brief(found['input'])} {wanted}{_unit(key, model)}.")


def _capital(words: str) -> str:
    # A sentence may begin with a key, which is written as it is.
    return f"{words[0].upper()}{words[1:]}" if words.startswith(("the ", "there ")) else words


def _place(key: str, places: Places) -> str | None:
    """Where a key was given, or a field of it, or the section that it is in."""
    above = key
    while above:
        if above in places:
            return places[above]
        above = above.rpartition(".")[0]
    return next((place for inner, place in places.items() if inner.startswith(f"{key}.")), None) if key else None


def _meant(place: str, value: object, model: type[BaseModel]) -> str:
    """What a key that is not there may have been meant for; `value` is what was given, fields if it is a section."""
    from .configurations import key_elsewhere  # which knows all that are explained here

    if isinstance(value, Mapping) and value:
        place = f"{place}.{next(iter(value))}"
    field = place.rpartition(".")[2]
    if same := [key for key in valid_keys(model) if key.rpartition(".")[2] == field]:  # in the wrong section
        return f"did you mean {difflib.get_close_matches(place, same, n=1, cutoff=0.0)[0]!r}?"
    if (elsewhere := key_elsewhere(place, model)) is not None:
        key, commands = elsewhere
        return f"{key!r} is of `{commands[0]}`{' and others' if len(commands) > 1 else ''}."
    return f"did you mean {_nearest_key(place, model)!r}?"


def _nearest_key(place: str, model: type[BaseModel]) -> str:
    keys = valid_keys(model)
    field = place.rpartition(".")[2]
    if "." not in place:
        keys = [*model.model_fields, *keys]
    close = difflib.get_close_matches(place, keys, n=1, cutoff=0.5)
    if close:
        return close[0]
    by_field = {k.rpartition(".")[2]: k for k in keys}  # perhaps the right field in the wrong section
    return by_field[difflib.get_close_matches(field, by_field, n=1, cutoff=0.0)[0]]


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
