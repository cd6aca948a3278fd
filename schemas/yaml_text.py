"""YAML from a person's file, read within limits: a text of 500 bytes can otherwise stand for 10^9 values.

The events of a text are walked before a value is built. What aliases stand for is counted as if it were written out,
since whoever uses the values walks all of it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 1_000_000
MAX_VALUES = 10_000  # with aliases written out; the longest configuration has 200
MAX_DEPTH = 30
MAX_NUMBER = 100  # characters; Python takes quadratic time to read one and refuses to print it beyond 4,300


class _Refused(yaml.YAMLError):
    pass


def parse_yaml(text: str) -> Any:
    """The value of a YAML document, of plain types only.

    Raises yaml.YAMLError for what is not YAML, more than MAX_VALUES values or MAX_DEPTH levels, a value that holds
    itself, a key that stands twice, and a number beyond MAX_NUMBER characters.
    """
    if len(text) > MAX_BYTES:
        raise _Refused(f"it has more than {MAX_BYTES:,} characters")
    try:
        _check(text)
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise
    # A scalar with a tag it does not fit, such as `!!int x` or 2001-99-99.
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise _Refused(f"a value does not fit its type ({error})") from None


def read_yaml(path: str) -> Any:
    """`parse_yaml` of a file. Raises OSError, and yaml.YAMLError also if it is too large or not UTF-8."""
    return parse_yaml(_read_text(path))


def read_yaml_with_lines(path: str) -> tuple[Any, dict[str, int]]:
    """`read_yaml`, and for each key of mappings in mappings, by dotted name, the line it stands in, from 1 on."""
    text = _read_text(path)
    value = parse_yaml(text)
    return value, dict(_lines(yaml.compose(text, yaml.SafeLoader), ""))


def _lines(node: yaml.Node | None, prefix: str) -> Iterator[tuple[str, int]]:
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode):
            yield f"{prefix}{key.value}", key.start_mark.line + 1
            yield from _lines(value, f"{prefix}{key.value}.")


def _read_text(path: str) -> str:
    with Path(path).open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise _Refused(f"it has more than {MAX_BYTES:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _Refused("it is not UTF-8 text") from None


def describe_trouble(error: yaml.YAMLError) -> str:
    """What is wrong, in one line that fits a sentence."""
    return " ".join(str(error).split())


class _Open:
    """A list or mapping whose end has not come."""

    def __init__(self, anchor: str | None, before: int, mapping: bool) -> None:
        self.anchor = anchor
        self.before = before  # values ahead of it
        self.mapping = mapping
        self.parts = 0
        self.keys: set[str] = set()


def _check(text: str) -> None:
    values = 0
    sizes: dict[str, int | None] = {}  # of what an anchor names; None while it is open
    stack: list[_Open] = []
    for event in yaml.parse(text, yaml.SafeLoader):
        where = f"line {event.start_mark.line + 1 if event.start_mark else 1}"
        if isinstance(event, yaml.CollectionEndEvent):
            closed = stack.pop()
            if closed.anchor is not None:
                sizes[closed.anchor] = values - closed.before
            continue
        if not isinstance(event, yaml.NodeEvent):
            continue
        is_key = bool(stack) and stack[-1].mapping and stack[-1].parts % 2 == 0
        if stack:
            stack[-1].parts += 1
        if isinstance(event, yaml.AliasEvent):
            size = sizes.get(event.anchor or "", 1)  # an unknown one is told by the loader
            if size is None:
                raise _Refused(f"{where}: *{event.anchor} stands for a value that holds itself")
            values += size
        else:
            values += 1
            if isinstance(event, yaml.CollectionStartEvent):
                stack.append(_Open(event.anchor, values - 1, isinstance(event, yaml.MappingStartEvent)))
                if len(stack) > MAX_DEPTH:
                    raise _Refused(f"{where}: lists and mappings are nested more than {MAX_DEPTH} deep")
            elif isinstance(event, yaml.ScalarEvent):
                _check_scalar(event, where)
                if is_key:
                    if event.value in stack[-1].keys and event.value != "<<":
                        raise _Refused(f"{where}: the key {_brief(event.value)} stands twice")
                    stack[-1].keys.add(event.value)
            if event.anchor is not None:
                sizes[event.anchor] = None if isinstance(event, yaml.CollectionStartEvent) else 1
        if values > MAX_VALUES:
            raise _Refused(f"{where}: it stands for more than {MAX_VALUES:,} values")


def _check_scalar(event: yaml.ScalarEvent, where: str) -> None:
    if event.style is None and len(event.value) > MAX_NUMBER and event.value.lstrip("+-.")[:1].isdigit():
        resolvers = yaml.SafeLoader.yaml_implicit_resolvers.get(event.value[0], [])
        if any(pattern.match(event.value) for _, pattern in resolvers):
            raise _Refused(f"{where}: the number {_brief(event.value)} has more than {MAX_NUMBER} characters")


def _brief(text: str) -> str:
    return text if len(text) <= 40 else text[:40] + "..."
