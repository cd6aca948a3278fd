import gzip
import importlib.util
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracles import FOLDER
from saliency_prompt.models.unilseg.tokenizer import Tokenizer, byte_letters, learn_merges, padding, split_words


def clip_merges() -> list[tuple[str, str]]:
    found = importlib.util.find_spec("open_clip")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs open_clip_torch, whose wheel brings CLIP's list of merges")
    path = Path(found.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(path.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    return [tuple(line.split()) for line in lines]  # type: ignore[misc]


def test_agrees_with_open_clip() -> None:
    path = FOLDER / "clip_bpe" / "cases.json"
    if not path.is_file():
        pytest.skip("needs ../shared with data/oracles/clip_bpe")
    cases = json.loads(path.read_text())
    tokenizer = Tokenizer(clip_merges())
    assert (tokenizer.begin, tokenizer.end, tokenizer.size) == (49406, 49407, 49408)
    for case in cases["items"]:
        assert tokenizer.encode(case["text"]) == case["bpe_ids"], case["text"]
        assert tokenizer.batch([case["text"]], 77)[0].tolist() == case["ids_77"]


def test_without_merges_words_are_spelled() -> None:
    tokenizer = Tokenizer()
    assert tokenizer.size == 514
    assert tokenizer.encode("ab") == [byte_letters().index("a"), 256 + byte_letters().index("b")]
    assert tokenizer.encode("") == []


def test_long_texts_are_cut_and_end() -> None:
    row = Tokenizer().batch(["a" * 1000, "b", ""], 7)
    assert row.shape == (3, 7)
    assert (row == 513).sum(1).tolist() == [1, 1, 1]
    assert row[0, -1] == 513
    assert row[2].tolist() == [512, 513, 0, 0, 0, 0, 0]


def test_padding_is_what_follows_the_end() -> None:
    tokens = Tokenizer().batch(["!!", "a"], 5)
    assert tokens[0, 1] == 0  # an exclamation mark has the number of padding
    assert padding(tokens, 513).tolist() == [[False] * 4 + [True], [False] * 3 + [True] * 2]


@given(st.text(max_size=60))
def test_any_text_has_numbers_in_range_and_keeps_its_bytes(text: str) -> None:
    tokenizer = Tokenizer([("a", "b"), ("ab", "c</w>")])
    numbers = tokenizer.encode(text)
    assert all(0 <= number < tokenizer.begin for number in numbers)
    assert "".join(split_words(text)) == "".join(text.split())
    assert torch.equal(tokenizer.batch([text], 9), tokenizer.batch([text], 9))


def test_learned_merges_make_words_of_frequent_texts() -> None:
    texts = ["the red circle", "the red square", "all circles"] * 3
    merges = learn_merges(texts, 100)
    tokenizer = Tokenizer(merges)
    assert len(tokenizer.encode("the red circle")) == 3
    assert merges == learn_merges(texts, 100)
    assert learn_merges([], 5) == []
