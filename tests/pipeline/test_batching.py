from hypothesis import given, settings
from hypothesis import strategies as st

from saliency_prompt.pipeline.batching import Batcher

shapes = st.lists(st.sampled_from("abcde"), max_size=80)


def batches(sequence: list[str], size: int, waiting: int) -> list[list[tuple[str, int]]]:
    batcher: Batcher[tuple[str, int]] = Batcher(size, waiting)
    out = [batch for i, shape in enumerate(sequence) if (batch := batcher.add(shape, (shape, i)))]
    return out + batcher.flush()


@settings(deadline=None, max_examples=50)
@given(shapes, st.integers(1, 6), st.integers(1, 4))
def test_every_item_once_in_batches_of_one_shape(sequence: list[str], size: int, groups: int) -> None:
    formed = batches(sequence, size, groups * size)
    assert sorted(i for batch in formed for _, i in batch) == list(range(len(sequence)))
    for batch in formed:
        assert 1 <= len(batch) <= size
        assert len({shape for shape, _ in batch}) == 1
        assert [i for _, i in batch] == sorted(i for _, i in batch)
    assert formed == batches(sequence, size, groups * size)


@settings(deadline=None, max_examples=50)
@given(shapes, st.integers(1, 6), st.integers(1, 4))
def test_no_more_wait_than_allowed(sequence: list[str], size: int, groups: int) -> None:
    batcher: Batcher[int] = Batcher(size, groups * size)
    waiting = 0
    for i, shape in enumerate(sequence):
        waiting += 1 - len(batcher.add(shape, i) or [])
        assert waiting < groups * size or waiting == 0


def test_the_fullest_group_goes_first_when_too_many_wait() -> None:
    assert batches(list("abbcc"), 3, 4) == [[("b", 1), ("b", 2)], [("a", 0)], [("c", 3), ("c", 4)]]
