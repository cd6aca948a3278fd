"""Splits into classes with masks and without."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.partial import VOC_NAMES, split_classes

# COCO's 80 in the order of their ids
COCO = """
    person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant stop_sign parking_meter
    bench bird cat dog horse sheep cow elephant bear zebra giraffe backpack umbrella handbag tie suitcase frisbee skis
    snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard tennis_racket bottle wine_glass cup
    fork knife spoon bowl banana apple sandwich orange broccoli carrot hot_dog pizza donut cake chair couch
    potted_plant bed dining_table toilet tv laptop mouse remote keyboard cell_phone microwave oven toaster sink
    refrigerator book clock vase scissors teddy_bear hair_drier toothbrush
"""
COCO = [name.replace("_", " ") for name in COCO.split()]


def test_the_papers_splits_are_the_known_indices() -> None:
    voc = split_classes(COCO, "voc")
    assert voc.base == (*range(7), 8, *range(14, 20), 39, 56, 57, 58, 60, 62)
    assert len(voc.base) == len(VOC_NAMES) == 20
    nonvoc = split_classes(COCO, "nonvoc")
    assert (nonvoc.base, nonvoc.novel) == (voc.novel, voc.base)
    assert nonvoc.labels("novel") == voc.base
    assert nonvoc.labels("all") == tuple(range(80))


@pytest.mark.parametrize("base", ["disc, Box", "# shapes\nDISC\n\nbox\n", ["box", "disc"], "box,disc,box"])
def test_names_in_any_form(base: str | list[str]) -> None:
    split = split_classes(["box", "red_star", "disc"], base)
    assert (split.base, split.novel) == ((0, 2), (1,))


@given(st.sets(st.integers(0, 11), min_size=1, max_size=11))
def test_every_class_is_on_one_side(chosen: set[int]) -> None:
    names = [f"kind {i}" for i in range(12)]
    split = split_classes(names, [names[i].upper().replace(" ", "_") for i in chosen])
    assert set(split.base) == chosen
    assert sorted(split.base + split.novel) == list(range(12))


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("dics", "did you mean 'disc'"),
        ("", "no base class"),
        ("# nothing", "no base class"),
        ("disc,box,star", "no novel class"),
        ("voc", "lack 'airplane'"),
    ],
)
def test_what_makes_no_split(base: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        split_classes(["disc", "box", "star"], base)
