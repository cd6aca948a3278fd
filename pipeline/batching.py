"""Batches of equal shape, formed by the order of the images and nothing else."""

from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Batcher(Generic[Item]):
    """Groups items of one shape into batches of `batch_size`.

    At most `max_waiting` items wait: beyond that the fullest group goes as it is (the first opened among equals),
    which bounds memory and is still a function of the order alone.
    """

    def __init__(self, batch_size: int, max_waiting: int) -> None:
        assert batch_size >= 1
        assert max_waiting >= batch_size
        self._batch_size = batch_size
        self._max_waiting = max_waiting
        self._groups: dict[Hashable, list[Item]] = {}
        self._waiting = 0

    def add(self, shape: Hashable, item: Item) -> list[Item] | None:
        """Take an item; give the batch that is due by it, if one is."""
        group = self._groups.setdefault(shape, [])
        group.append(item)
        self._waiting += 1
        if len(group) == self._batch_size:
            return self._take(shape)
        if self._waiting >= self._max_waiting:
            return self._take(max(self._groups, key=lambda s: len(self._groups[s])))
        return None

    def flush(self) -> list[list[Item]]:
        """The batches that are left, in the order in which their shapes first came."""
        return [self._take(shape) for shape in list(self._groups)]

    def _take(self, shape: Hashable) -> list[Item]:
        group = self._groups.pop(shape)
        self._waiting -= len(group)
        return group
