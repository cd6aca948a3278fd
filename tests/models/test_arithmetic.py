"""Products of masks are counts, on whatever units they are computed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saliency_prompt.models import arithmetic
from saliency_prompt.models.arithmetic import intersections


@pytest.fixture(params=[True, False], ids=["bytes", "bf16"])
def units(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "_cpu_multiplies_bytes", lambda: request.param)


@pytest.mark.parametrize("shape", [(2, 5, 7), (1, 1, 1), (3, 40, 1000), (2, 0, 9), (1, 4, 0)])
def test_intersections_are_counts(units: None, shape: tuple[int, int, int]) -> None:
    masks = (torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.6).float()
    found = intersections(masks)
    assert found.dtype == torch.float32
    expected = (masks.unsqueeze(2).bool() & masks.unsqueeze(1).bool()).sum(3)
    torch.testing.assert_close(found, expected.float(), atol=0, rtol=0)


def test_large_counts_are_exact(units: None) -> None:
    """Where bf16 and int8 have no such number any more."""
    masks = torch.ones(1, 2, 70_001)
    masks[0, 1, 0] = 0
    assert intersections(masks)[0].tolist() == [[70_001, 70_000], [70_000, 70_000]]


@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=8))
def test_both_ways_are_one(rows: list[list[bool]]) -> None:
    masks = torch.tensor(rows).float()[None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arithmetic, "_cpu_multiplies_bytes", lambda: True)
        fast = intersections(masks)
        patch.setattr(arithmetic, "_cpu_multiplies_bytes", lambda: False)
        assert torch.equal(fast, intersections(masks))
