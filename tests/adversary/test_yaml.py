"""YAML that stands for more than it is: refused in one sentence, wherever a person's file or value is read."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from saliency_prompt.schemas.cluster_spec import load_cluster_spec
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.load import load_config
from saliency_prompt.schemas.yaml_text import MAX_DEPTH, MAX_VALUES, parse_yaml, read_yaml


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines) + f"\nnms: {{max_masks: *a{levels - 1}}}\n"


HOSTILE = {
    "aliases of aliases": bomb(9),
    "mappings of aliases": "a: &a {x: 1, y: 2}\n" + "".join(f"b{i}: *a\n" for i in range(MAX_VALUES)),
    "merged bomb": "a0: &a0 {x: 1}\n"
    + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 9)),
    "a list that holds itself": "nms: &a [*a]\n",
    "a mapping that holds itself": "nms: &a {max_masks: *a}\n",
    "deep lists": "nms: " + "[" * 5000 + "]" * 5000,
    "deep mappings": "nms: " + "{a: " * 2000 + "1" + "}" * 2000,
    "deep blocks": "".join(" " * i + "a:\n" for i in range(1000)),
    "open lists": "[" * 100_000,
    "many digits": "nms: {max_masks: " + "9" * 5000 + "}\n",
    "many digits, negative": "nms: {max_masks: -" + "9" * 5000 + "}\n",
    "many hexadecimal digits": "nms: {max_masks: 0x" + "f" * 5000 + "}\n",
    "a number to the base of 60": "nms: {max_masks: 1" + ":59" * 100_000 + "}\n",
    "a fraction to the base of 60": "nms: {max_masks: 1" + ":59" * 1000 + ".5}\n",
    "a number by its tag": "nms: {max_masks: !!int '" + "9" * 5000 + "'}\n",
    "no date": "nms: {max_masks: 2001-99-99}\n",
    "no number": "nms: {max_masks: !!int ''}\n",
    "no truth": "nms: {max_masks: !!bool perhaps}\n",
    "no time": "nms: {max_masks: !!timestamp x}\n",
    "a list as a key": "nms: {[a, b]: 1}\n",
    "an object": "nms: !!python/object/apply:os.system ['true']\n",
    "a key twice": "nms: {max_masks: 5, max_masks: 6}\n",
    "two documents": "nms: {}\n---\nnms: {}\n",
    "many values": "nms: [" + "1, " * MAX_VALUES + "]\n",
    "a long text": "nms: '" + "x" * 1_000_001 + "'\n",
    "unknown alias": "nms: *nothing\n",
    "a control character": "nms: \x00\n",
}
READERS: dict[str, Callable[[str], object]] = {
    "configuration": lambda path: load_config(file=path),
    "cluster": load_cluster_spec,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_one_sentence(name: str, reader: str, tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(HOSTILE[name])
    with pytest.raises(UserError) as caught:
        READERS[reader](str(path))
    said = str(caught.value)
    assert len(said) < 600
    assert "\n" not in said


@pytest.mark.parametrize("name", sorted(set(HOSTILE) - {"two documents", "a key twice"}))
def test_a_hostile_value_is_one_sentence(name: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(overrides=[f"nms.max_masks={HOSTILE[name].removeprefix('nms: ')}"])
    assert len(str(caught.value)) < 600


def test_files_without_an_end_and_without_text_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"nms: caf\xe9\n")
    for path in ("/dev/zero", str(tmp_path / "latin.yaml"), str(tmp_path), str(tmp_path / "gone.yaml")):
        for reader in READERS.values():
            with pytest.raises(UserError):
                reader(path)


def test_a_deep_key_is_one_sentence() -> None:
    with pytest.raises(UserError, match="here is no config key"):
        load_config(overrides=["nms" + ".x" * 3000 + "=1"])


def test_what_people_write_is_read() -> None:
    text = "base: &base {a: 1, b: [1, 2]}\none: {<<: *base, b: 3}\nlist: [*base, *base]\nbig: 12345678901234567890\n"
    assert parse_yaml(text) == yaml.safe_load(text)
    assert parse_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH) is not None
    assert parse_yaml("x: " + "a" * 5000)["x"] == "a" * 5000
    assert parse_yaml("digest: '" + "9" * 5000 + "'")["digest"] == "9" * 5000
    assert parse_yaml("") is None


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(b"\xef\xbb\xbfnms: {max_masks: 5}\n")
    assert read_yaml(str(tmp_path / "c.yaml")) == {"nms": {"max_masks": 5}}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@given(VALUES)
def test_it_reads_what_the_library_reads(value: object) -> None:
    text = yaml.safe_dump(value)
    assert parse_yaml(text) == yaml.safe_load(text)


@given(st.text("ab:- [],{}&*<!|>'\"\n#0129.", max_size=60))
def test_no_text_breaks_it(text: str) -> None:
    with contextlib.suppress(yaml.YAMLError):
        parse_yaml(text)
