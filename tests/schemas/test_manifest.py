import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from saliency_prompt.schemas.labels.saliency import Config
from saliency_prompt.schemas.manifest import FileEntry, ShardCounts, describe_difference, fingerprint
from saliency_prompt.schemas.section import identity


def leaves(values: dict[str, Any], prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    return [
        path
        for key, value in values.items()
        for path in (leaves(value, (*prefix, key)) if isinstance(value, dict) else [(*prefix, key)])
    ]


CONFIG = identity(Config())


@settings(deadline=None, max_examples=50)
@given(path=st.sampled_from(leaves(CONFIG)))
def test_every_setting_counts(path: tuple[str, ...]) -> None:
    changed = copy.deepcopy(CONFIG)
    section = changed
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = "another"
    assert fingerprint(changed, "0") != fingerprint(CONFIG, "0")
    assert f"{'.'.join(path)} was " in describe_difference(CONFIG, changed)
    assert "now 'another'" in describe_difference(CONFIG, changed)


def test_the_weights_count_by_their_hash() -> None:
    reordered = {key: CONFIG[key] for key in reversed(CONFIG)}
    assert fingerprint(reordered, "0") == fingerprint(CONFIG, "0") != fingerprint(CONFIG, "1")


def test_the_parent_counts_where_there_is_one() -> None:
    without, one, other = (fingerprint(CONFIG, "0", parent) for parent in (None, "a", "b"))
    assert without == fingerprint(CONFIG, "0")
    assert len({without, one, other}) == 3


def test_a_difference_names_keys_and_both_values() -> None:
    old = {"nms": {"max_masks": 20, "kind": "matrix"}, "features": {"weights": "a"}, "gone": 1}
    new = {"nms": {"max_masks": 50, "kind": "matrix"}, "features": {"weights": "b"}, "come": 2}
    said = describe_difference(old, new)
    assert said == "nms.max_masks was 20, now 50, gone was 1, now None, come was None, now 2"


def test_counts_add_up() -> None:
    one = ShardCounts(images=3, ok=1, empty=1, quarantined=1, masks=5)
    assert sum([one, one], ShardCounts()) == ShardCounts(images=6, ok=2, empty=2, quarantined=2, masks=10)


@pytest.mark.parametrize("digest", ["", "0" * 63, "G" * 64, "../" * 21 + "0"])
def test_a_digest_is_a_digest(digest: str) -> None:
    with pytest.raises(ValidationError):
        FileEntry(size=1, sha256=digest)
