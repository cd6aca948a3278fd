"""Plain values and arrays out of a pickle, without executing anything.

REFER publishes its references as pickles, and detectron2 its checkpoints. Only operations that build numbers, strings,
lists, tuples, dicts and numpy's arrays of numbers are known; any other ends the reading.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_PLAIN = {
    *("INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_FIXED: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_NOTHING = {"PROTO", "FRAME", "STOP"}


class PickleError(ValueError):
    """Not a pickle of plain values and arrays."""


class _Mark:
    """Where a group of values begins on the stack."""


@dataclass
class _Kind:
    """The type of an array's numbers; a pickle says the order of their bytes after the rest."""

    code: str
    order: str = "="

    def build(self, state: Any) -> None:
        self.order = str(state[1])

    def read(self, data: Any) -> Any:
        kind = np.dtype(f"{self.order}{self.code}")
        if kind.kind not in "biuf":
            raise PickleError(f"it asks for more than plain values and arrays of numbers ({self.code})")
        return np.frombuffer(data.encode("latin-1") if isinstance(data, str) else data, kind)


@dataclass
class _Array:
    """An array that a pickle names first and fills afterwards."""

    value: Any = field(default=None, init=False)

    def build(self, state: Any) -> None:
        _, shape, kind, by_columns, data = state
        self.value = kind.read(data).reshape(shape, order="F" if by_columns else "C")


@dataclass(frozen=True)
class _Call:
    """Something of a module that a pickle may call; what it makes is made here."""

    make: Callable[..., Any]


def _encode(text: str, encoding: str) -> bytes:
    return text.encode({"latin1": "latin-1"}[encoding])


def _from_buffer(data: Any, kind: _Kind, shape: Any, order: str) -> _Array:
    found = _Array()
    found.build((1, shape, kind, {"C": False, "F": True}[order], data))
    return found


_CALLS = {
    "_codecs encode": _Call(_encode),  # bytes, in Python 2's protocols
    "__builtin__ bytes": _Call(lambda: b""),
    "collections OrderedDict": _Call(lambda pairs=(): dict(pairs)),
    "numpy dtype": _Call(lambda code, *_: _Kind(code)),
    "numpy ndarray": _Call(_Array),  # the kind of what is reconstructed
}
for _core in ("numpy.core", "numpy._core"):  # before and from numpy 2 on
    _CALLS[f"{_core}.multiarray _reconstruct"] = _Call(lambda *_: _Array())
    _CALLS[f"{_core}.multiarray scalar"] = _Call(lambda kind, data: kind.read(data)[0].item())
    _CALLS[f"{_core}.numeric _frombuffer"] = _Call(_from_buffer)


def read_plain_pickle(data: bytes) -> Any:
    """The value. Raises PickleError for a pickle that would do more than build such values, and for none."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for code, argument, _ in pickletools.genops(data):
            _apply(code.name, argument, stack, memo)
        (value,) = stack
        return _finished(value, {})
    except PickleError:
        raise
    except Exception as error:  # genops raises what it likes, and a damaged pickle has anything for arguments
        raise PickleError(f"it is no pickle: {error}") from None


def _apply(name: str, argument: Any, stack: list[Any], memo: dict[int, Any]) -> None:
    if name in _PLAIN:
        stack.append(argument)
    elif name in _FIXED:
        stack.append(_FIXED[name])
    elif name in ("EMPTY_LIST", "EMPTY_DICT"):
        stack.append([] if name == "EMPTY_LIST" else {})
    elif name == "MARK":
        stack.append(_Mark())
    elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
        memo[int(argument)] = stack[-1]
    elif name == "MEMOIZE":
        memo[len(memo)] = stack[-1]
    elif name in ("GET", "BINGET", "LONG_BINGET"):
        stack.append(memo[int(argument)])
    elif name == "POP":
        stack.pop()
    elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
        count = int(name[-1])
        stack[-count:] = [tuple(stack[-count:])]
    elif name in ("LIST", "TUPLE", "DICT"):
        items = _group(stack)
        made = {"LIST": list, "TUPLE": tuple}.get(name)
        stack.append(made(items) if made is not None else dict(zip(items[::2], items[1::2], strict=True)))
    elif name in ("APPEND", "APPENDS"):
        items = [stack.pop()] if name == "APPEND" else _group(stack)
        stack[-1].extend(items)
    elif name in ("SETITEM", "SETITEMS"):
        items = _group(stack) if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
        stack[-1].update(zip(items[::2], items[1::2], strict=True))
    elif name in ("GLOBAL", "STACK_GLOBAL"):
        stack.append(_known(argument if name == "GLOBAL" else f"{stack.pop(-2)} {stack.pop()}"))
    elif name == "REDUCE":
        arguments, call = stack.pop(), stack.pop()
        stack.append(call.make(*arguments))
    elif name == "BUILD":
        state = stack.pop()
        if isinstance(stack[-1], _Kind | _Array):  # a dict's attributes, such as a state dict's versions, are left out
            stack[-1].build(state)
    elif name not in _NOTHING:
        raise PickleError(f"it asks for more than plain values ({name})")


def _known(name: str) -> _Call:
    if name not in _CALLS:
        raise PickleError(f"it asks for more than plain values ({name.replace(' ', '.')})")
    return _CALLS[name]


def _group(stack: list[Any]) -> list[Any]:
    """What lies above the newest mark, which goes with it."""
    place = max(i for i, one in enumerate(stack) if isinstance(one, _Mark))
    items = stack[place + 1 :]
    del stack[place:]
    return items


def _finished(value: Any, done: dict[int, tuple[Any, Any]]) -> Any:
    """The value with its arrays in their places.

    `done` holds by its id what was seen, and what became of it: a pickle can name one value many times over, and inside
    of itself.
    """
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, _Kind | _Call | _Mark):
        raise PickleError("it asks for more than plain values and arrays")
    if not isinstance(value, dict | list | tuple):
        return value
    if id(value) in done:
        return done[id(value)][1]
    if isinstance(value, tuple):
        found = tuple(_finished(one, done) for one in value)
        done[id(value)] = value, found
        return found
    done[id(value)] = value, value
    for place, one in value.items() if isinstance(value, dict) else enumerate(value):
        value[place] = _finished(one, done)
    return value
