"""Values and arrays come out of pickles as they went in, and nothing in a pickle is run."""

import collections
import contextlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from saliency_prompt.store.pickled import PickleError, read_plain_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
KINDS = arrays.integer_dtypes() | arrays.unsigned_integer_dtypes() | arrays.floating_dtypes(sizes=(16, 32, 64))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_values_are_read(protocol: int) -> None:
    value = [
        {"a": 1, "b": [1.5, None, True, False], "c": ("x", 2**40, -3, b"y" if protocol > 2 else "y")},
        [],
        {},
        collections.OrderedDict(a=1, b=[2]),
    ]
    assert read_plain_pickle(pickle.dumps(value, protocol=protocol)) == value


@given(
    array=arrays.arrays(KINDS | arrays.boolean_dtypes(), arrays.array_shapes(min_dims=0, min_side=0)),
    by_columns=st.booleans(),
    protocol=st.sampled_from(PROTOCOLS),
)
def test_arrays_are_read(array: Any, by_columns: bool, protocol: int) -> None:
    array = np.asfortranarray(array) if by_columns else array
    whole = {"model": {"weight": array, "again": array}, "epoch": np.int64(3), "author": "somebody"}
    found = read_plain_pickle(pickle.dumps(whole, protocol=protocol))
    assert (found["epoch"], found["author"]) == (3, "somebody")
    for one in found["model"].values():
        assert one.dtype == array.dtype
        np.testing.assert_array_equal(one, array)


def test_names_of_numpy_before_its_second_version_are_read() -> None:
    data = pickle.dumps(np.arange(6.0).reshape(2, 3), protocol=2).replace(b"numpy._core", b"numpy.core")
    np.testing.assert_array_equal(read_plain_pickle(data), np.arange(6.0).reshape(2, 3))


def test_what_is_named_many_times_is_built_once() -> None:
    """Written out it would be 2^60 lists."""
    nested: list[Any] = [np.arange(2)]
    for _ in range(60):
        nested = [nested, nested]
    found = read_plain_pickle(pickle.dumps(nested))
    assert found[0] is found[1]
    ring: list[Any] = [1]
    ring.append((ring,))
    found = read_plain_pickle(pickle.dumps(ring))
    assert found[1][0] is found


class Harmful:
    """Touches a file when a pickle of it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        """See `pickle`."""
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pickles_that_do_things_are_refused(tmp_path: Path, protocol: int) -> None:
    for value in (Harmful(tmp_path / "there"), Path("x"), print, np.array([print]), np.array(["text"])):
        with pytest.raises(PickleError, match="more than plain values"):
            read_plain_pickle(pickle.dumps({"a": value}, protocol=protocol))
    assert not list(tmp_path.iterdir())


def test_damage_is_told() -> None:
    whole = pickle.dumps([{"a": np.arange(9)}])
    for data in (b"", b"rubbish", b"cnumpy\nndarray\n.", *(whole[:place] for place in range(len(whole) - 1))):
        with pytest.raises(PickleError):
            read_plain_pickle(data)


@given(st.binary(max_size=200))
def test_anything_else_is_no_pickle(data: bytes) -> None:
    with contextlib.suppress(PickleError):
        read_plain_pickle(data)
