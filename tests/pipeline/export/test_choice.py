import numpy as np
import pyarrow as pa
import pytest

from saliency_prompt.pipeline.export.choice import Choice, parse_shares
from saliency_prompt.schemas.errors import UserError


def test_shares_are_kept_to_the_photograph_and_do_not_follow_the_order() -> None:
    ids = np.arange(1000, dtype=np.int64) * 12345 + 7
    choice = Choice(shares=(0.8, 0.1, 0.1))
    parts = choice.split(ids)
    assert np.bincount(parts).tolist() == [800, 100, 100]
    turned = choice.split(ids[::-1])
    np.testing.assert_array_equal(turned[::-1], parts)
    assert 60 < parts[:500].astype(bool).sum() < 140  # not the last ones alone
    assert Choice().split(ids).max() == 0


def test_masks_are_chosen_by_score_area_and_then_rank() -> None:
    masks = pa.table({"score": pa.array([0.9, 0.8, 0.7, 0.2], pa.float32()), "area": [10, 1, 30, 99]})
    assert Choice(min_score=0.5, min_area=5).rows(masks) == [0, 2]
    assert Choice(min_area=5, top=2).rows(masks) == [0, 2]
    assert Choice().rows(masks) == [0, 1, 2, 3]


def test_shares_are_read() -> None:
    assert parse_shares(None) == ()
    assert parse_shares("0.9/0.1") == (0.9, 0.1)
    for bad in ("0.9", "a/b", "0/1", "0.2/0.2/0.2/0.4", ""):
        with pytest.raises(UserError, match=r"0\.9/0\.1"):
            parse_shares(bad)
    with pytest.raises(UserError, match="add up to"):
        parse_shares("0.9/0.2")
