import multiprocessing
from copy import copy
from dataclasses import dataclass, field, fields

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import tv_tensors

from saliency_prompt.stages.training.packing import Packed


@dataclass(frozen=True, slots=True, eq=False)
class Group(Packed):
    maps: list[Tensor]
    layers: list[dict[str, Tensor]]
    number: int
    words: tuple[str, ...] = ()
    scale: Tensor = field(default_factory=lambda: torch.tensor(2.5, dtype=torch.float64))


GROUP = Group(
    [torch.arange(24.0).view(2, 3, 4).transpose(0, 2), torch.zeros(0, 7, 5, dtype=torch.uint8), torch.tensor([True])],
    [{"a": tv_tensors.Mask(torch.arange(5, dtype=torch.uint8))}, {}],
    7,
    ("x", "y"),
)


def same(one: Group, other: Group) -> None:
    assert (one.number, one.words) == (other.number, other.words)
    pairs = [(one.scale, other.scale), *zip(one.maps, other.maps, strict=True)]
    pairs.append((torch.as_tensor(one.layers[0]["a"]), other.layers[0]["a"]))
    for mine, theirs in pairs:
        assert mine.dtype == theirs.dtype
        assert mine.shape == theirs.shape
        assert torch.equal(mine, theirs)


def test_what_comes_out_is_what_went_in() -> None:
    made = copy(GROUP)
    same(made, GROUP)
    assert [one.name for one in fields(made)] == ["maps", "layers", "number", "words", "scale"]
    assert type(made.layers[0]["a"]) is Tensor
    assert made.maps[0].untyped_storage().data_ptr() == made.scale.untyped_storage().data_ptr()


def test_what_came_can_be_written_to() -> None:
    made = copy(GROUP)
    made.maps[0].mul_(2)
    assert made.scale == GROUP.scale


def test_nothing_in_it() -> None:
    assert copy(Group([], [], 1, (), torch.zeros(0))).number == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_through_a_loader(workers: int) -> None:
    context = multiprocessing.get_context("fork") if workers else None
    loader = DataLoader([GROUP, GROUP], batch_size=None, num_workers=workers, multiprocessing_context=context)
    for one in loader:
        same(one, GROUP)
