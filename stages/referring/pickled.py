"""Plain values out of a pickle, without executing anything: REFER's lists are published as pickles.

Only operations that build numbers, strings, lists, tuples and dicts are known; any other ends the reading.
"""

import pickletools
from typing import Any

_PLAIN = {
    *("INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_FIXED: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_NOTHING = {"PROTO", "FRAME", "STOP"}


class PickleError(ValueError):
    """Not a pickle of plain values."""


class _Mark:
    """Where a group of values begins on the stack."""


def read_plain_pickle(data: bytes) -> Any:
    """The value. Raises PickleError for a pickle that would do more than build plain values, and for none."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for code, argument, _ in pickletools.genops(data):
            _apply(code.name, argument, stack, memo)
        (value,) = stack
    except PickleError:
        raise
    except Exception as error:  # genops raises what it likes
        raise PickleError(f"it is no pickle: {error}") from None
    return value


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
    elif name not in _NOTHING:
        raise PickleError(f"it asks for more than plain values ({name})")


def _group(stack: list[Any]) -> list[Any]:
    """What lies above the newest mark, which goes with it."""
    place = max(i for i, one in enumerate(stack) if isinstance(one, _Mark))
    items = stack[place + 1 :]
    del stack[place:]
    return items
