import re

import pytest

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.labels.saliency import PRESETS
from saliency_prompt.schemas.load import load_config, parse_config, valid_keys


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid_and_survive_json(preset: str) -> None:
    config = load_config(preset)
    assert parse_config(config.model_dump(mode="json")) == config


def test_presets_carry_the_choices_they_are_named_for() -> None:
    literal, uplvp = load_config("paper-literal"), load_config("uplvp")
    assert (literal.saliency.seeding, literal.saliency.similarity) == ("grid", "dot")
    assert (literal.normalize.scope, literal.nms.kind) == ("image", "greedy")
    assert literal.filters.min_score is None
    assert (uplvp.decode.keep_ratio, uplvp.filters.keep_best) == (False, True)
    assert load_config("freesolo").features.weights == "densecl-r101-in1k-200ep"


def test_later_sources_win(tmp_path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("nms: {max_masks: 5}\nfilters: {min_score: 0.6}\n")
    config = load_config("uplvp", str(file), ["filters.min_score=null", "saliency.scales=[1, 0.5]"])
    assert config.nms.max_masks == 5
    assert config.filters.min_score is None
    assert config.filters.min_center_y == 0.1
    assert config.saliency.scales == (1.0, 0.5)


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("nms.max_mask=5", "nms.max_masks"),
        ("nsm.max_masks=5", "nms.max_masks"),
        ("filters.max_masks=5", "nms.max_masks"),
        ("short_side=400", "decode.short_side"),
        ("decod.short_side=400", "decode.short_side"),
        ("featurs.arch=resnet18", "features.arch"),
    ],
)
def test_a_misspelt_key_names_the_nearest(override: str, nearest: str) -> None:
    with pytest.raises(UserError, match="There is no config key") as caught:
        load_config(overrides=[override])
    named = str(caught.value).split("did you mean '")[1].split("'")[0]
    assert named == nearest or nearest.startswith(f"{named}.")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("decode.short_side=abc", "valid integer"),
        ("saliency.scales=[2]", "less than or equal to 1"),
        ("decode.long_side=100", "below decode.short_side"),
        ("nms=5", "nms = 5"),
        ("nms.max_masks", "--set takes section.field=value"),
        ("threshold.tau=[", "is not a value"),
    ],
)
def test_a_wrong_value_says_what_is_right(override: str, says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)) as caught:
        load_config(overrides=[override])
    assert "\n" not in str(caught.value)


def test_every_key_is_listed() -> None:
    keys = valid_keys()
    assert {"plan.shard_size", "decode.short_side", "features.arch", "features.stride_in_1x1"} <= set(keys)
    assert len(keys) == len(set(keys))


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(UserError, match="3 things in the configuration are wrong") as caught:
        load_config(overrides=["nms.max_mask=5", "threshold.tau=3", "decode.min_side=abc"])
    for part in ("nms.max_masks", "threshold.tau = 3", "decode.min_side = 'abc'"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
