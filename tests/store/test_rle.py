import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from saliency_prompt.store.rle import MAX_PIXELS, valid_rles


def areas(counts: list[bytes], sizes: list[tuple[int, int]]) -> list[int]:
    heights, widths = np.array(sizes, np.int32).reshape(-1, 2).T
    return valid_rles(pa.chunked_array([pa.array(counts, pa.binary())]), heights, widths).tolist()


def by_loop(counts: bytes, height: int, width: int) -> int:
    """As the format is written down, one character after another."""
    runs: list[int] = []
    value = shift = 0
    for byte in counts:
        char = byte - 48
        if not 0 <= char <= 63 or shift >= 35:
            return -1
        value |= (char & 31) << shift
        shift += 5
        if not char & 32:
            value -= (1 << shift) if char & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
            if not 0 <= runs[-1] <= MAX_PIXELS:
                return -1
    if shift or not runs or min(height, width) < 1 or height * width > MAX_PIXELS:
        return -1
    return sum(runs[1::2]) if sum(runs) == height * width and len(runs) <= height * width + 1 else -1


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31)), max_size=8))
def test_real_masks_pass_with_their_area(drawn: list[tuple[int, int, int]]) -> None:
    rles = []
    for height, width, seed in drawn:
        random = np.random.default_rng(seed)
        mask = random.random((height, width)) < random.choice([0, 0.02, 0.5, 0.98, 1])
        rles.append(coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))))
    found = areas([rle["counts"] for rle in rles], [(h, w) for h, w, _ in drawn])
    assert found == [int(coco_mask.area(rle)) for rle in rles]


@given(st.lists(st.tuples(st.binary(max_size=12), st.integers(-1, 9), st.integers(-1, 9)), max_size=8))
def test_any_bytes_are_judged_as_by_a_loop(drawn: list[tuple[bytes, int, int]]) -> None:
    expected = [by_loop(counts, h, w) for counts, h, w in drawn]
    assert areas([counts for counts, _, _ in drawn], [(h, w) for _, h, w in drawn]) == expected


@given(st.lists(st.tuples(st.text("0123456789:;<=>?@ABCDEFGNOPQ_`ano", max_size=10), st.integers(0, 9)), max_size=8))
def test_digits_at_random_are_judged_as_by_a_loop(drawn: list[tuple[str, int]]) -> None:
    counts = [text.encode() for text, _ in drawn]
    expected = [by_loop(one, side, 2) for one, (_, side) in zip(counts, drawn, strict=True)]
    assert areas(counts, [(side, 2) for _, side in drawn]) == expected


@pytest.mark.parametrize(
    ("counts", "size"),
    [
        (b"", (4, 4)),  # drawn from uninitialised memory by pycocotools
        (b"o", (4, 4)),  # ends in the middle of a number
        (b"T1O", (6, 6)),  # a negative run
        (b"U1", (6, 6)),  # one too many
        (b"T1", (2**31 - 1, 2**31 - 1)),
        (b"T1", (-6, -6)),
        (b"ooooooooooT1", (6, 6)),  # a number of any length
        (b"T1\n", (6, 6)),
    ],
)
def test_what_is_no_mask_costs_itself_alone(counts: bytes, size: tuple[int, int]) -> None:
    assert areas([b"T1", counts, b"0T1"], [(6, 6), size, (6, 6)]) == [0, -1, 36]


def test_slices_and_several_chunks_are_read_right() -> None:
    column = pa.chunked_array([[b"x", b"T1"], [b"0T1"], []], pa.binary()).slice(1)
    assert valid_rles(column, np.int32([6, 6]), np.int32([6, 6])).tolist() == [0, 36]
    assert valid_rles(pa.chunked_array([], pa.binary()), np.int32([]), np.int32([])).tolist() == []
