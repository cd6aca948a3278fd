import os

from hypothesis import example, given
from hypothesis import strategies as st

from saliency_prompt.stages.names import name_on_disk, stored_name

ODD = st.one_of(
    st.binary(max_size=20), st.lists(st.sampled_from([b"\\", b"u", b"dc", b"5c", b"e9", b"\xe9", b"a"])).map(b"".join)
)


@given(ODD)
@example(b"\\udce9")
@example(b"\\udc5cudce9\xe9")
@example(b"\\\xe9")
def test_every_name_comes_back(name: bytes) -> None:
    stored = stored_name(os.fsdecode(name))
    assert os.fsencode(name_on_disk(stored)) == name
    assert stored.encode("utf-8").decode() == stored  # no half characters


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=30).filter(lambda name: "\\udc" not in name))
def test_usual_names_are_kept(name: str) -> None:
    assert stored_name(name) == name == name_on_disk(name)


def test_the_documented_form() -> None:
    assert stored_name(os.fsdecode(b"caf\xe9.jpg")) == r"caf\udce9.jpg"
    assert stored_name(r"caf\udce9.jpg") == r"caf\udc5cudce9.jpg"
    assert stored_name("\ud800") == r"\ud800"
    # Nothing that leads to another folder comes out of an escape.
    assert name_on_disk(r"\udc2e\udc2e\udc2fx") == r"\udc2e\udc2e\udc2fx"
