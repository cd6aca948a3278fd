import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel

from saliency_prompt.schemas.configurations import configurations, key_elsewhere
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.explain import valid_keys
from saliency_prompt.schemas.labels.saliency import PRESETS, Config
from saliency_prompt.schemas.load import load_config, parse_config
from saliency_prompt.schemas.registry import load_label_config
from saliency_prompt.schemas.training.densecl import load_densecl_config
from saliency_prompt.schemas.training.registry import find_model, load_pretraining_config, load_training_config
from saliency_prompt.schemas.training.unilseg import load_unilseg_config


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
    with pytest.raises(UserError, match="there is no config key") as caught:
        load_config(overrides=[override])
    named = str(caught.value).split("did you mean '")[1].split("'")[0]
    assert named == nearest or nearest.startswith(f"{named}.")


@pytest.mark.parametrize(
    ("load", "override", "key", "command"),
    [
        (load_config, "trainer.lr=1", "trainer.lr", "train --model knet` and others"),
        (load_config, "trainer.max_epoch=3", "trainer.max_epochs", "train --model knet` and others"),
        (load_config, "optim.lr=0.1", "optim.lr", "densecl`."),
        (load_config, "merge.colour=3", "merge.color", "generate --producer merge`."),
        (partial(load_training_config, "solov2"), "prompt.assigner=none", "prompt.assigner", "pretrain --model knet`"),
        (partial(load_training_config, "knet"), "nms.kind=greedy", "nms.kind", "generate`."),
        (partial(load_training_config, "knet"), "model.queue=16", "model.queue", "densecl`."),
        (load_densecl_config, "data.batch_size=4", "optim.batch_size", None),  # its own field in another section
        (partial(load_label_config, "merge"), "detect.treshold=0.4", "detect.threshold", "generate --model RUN`."),
    ],
)
def test_a_key_of_another_command_names_that(load: Any, override: str, key: str, command: str | None) -> None:
    with pytest.raises(UserError, match="there is no config key") as caught:
        load(overrides=[override])
    wanted = f"did you mean {key!r}?" if command is None else f"{key!r} is of `{command}"
    assert wanted in str(caught.value)


def test_every_key_of_any_configuration_is_found_by_those_who_lack_it() -> None:
    for one in configurations():
        for key in valid_keys(one.model):
            elsewhere = key_elsewhere(key, BaseModel)
            assert elsewhere is not None
            assert elsewhere[0] == key
            assert one.command in elsewhere[1]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("decode.short_side=abc", "must be a whole number"),
        ("saliency.scales=[2]", "saliency.scales.0 = 2 must be 1.0 or less"),
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
    keys = valid_keys(Config)
    assert {"plan.shard_size", "decode.short_side", "features.arch", "features.stride_in_1x1"} <= set(keys)
    assert len(keys) == len(set(keys))


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(UserError, match="3 things in the configuration are wrong") as caught:
        load_config(overrides=["nms.max_mask=5", "threshold.tau=3", "decode.min_side=abc"])
    for part in ("nms.max_masks", "threshold.tau = 3", "decode.min_side = 'abc'"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mistake_in_a_file_is_said_with_its_line(tmp_path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("# of mine\nnms: {max_masks: 5}\n\nthreshold:\n  tau: 3\ndecod:\n  short_side: 9\n")
    with pytest.raises(UserError, match="3 things") as caught:
        load_config(file=str(file), overrides=["nms.max_masks=many"])
    said = str(caught.value)
    assert f"{file}, line 5: the config value threshold.tau = 3 must be below 1.0" in said
    assert f"{file}, line 6: there is no config key 'decod'" in said
    assert "--set: the config value nms.max_masks = 'many' must be a whole number" in said  # it came last


def test_what_follows_from_a_mistake_is_not_said() -> None:
    with pytest.raises(UserError) as caught:
        load_config(overrides=["saliency.scales=[2]"])
    assert "things" not in str(caught.value)


def test_the_command_that_shows_the_keys_is_the_right_one() -> None:
    for load, command in (
        (lambda: load_training_config("knet", overrides=["trainer.lrr=1"]), "config show knet`"),
        (lambda: load_pretraining_config("knet", overrides=["trainer.lrr=1"]), "config show knet --pretrain`"),
        (lambda: load_label_config("merge", overrides=["decode.sid=1"]), "config show merge`"),
        (lambda: load_densecl_config(overrides=["optim.epoch=1"]), "config show densecl`"),
        (lambda: load_unilseg_config(overrides=["trainer.lrr=1"]), "config show unilseg`"),
    ):
        with pytest.raises(UserError, match="did you mean") as caught:
            load()
        assert command in str(caught.value)


def _every_bound(schema: Any) -> Iterator[tuple[str, str, Any]]:
    """Section, field, and a value that its range refuses."""
    for section, field in schema["properties"].items():
        inner = schema["$defs"].get(field.get("$ref", "").rpartition("/")[2], {})
        for name, one in inner.get("properties", {}).items():
            if "minimum" in one:
                yield section, name, one["minimum"] - 1
            if "exclusiveMaximum" in one:
                yield section, name, one["exclusiveMaximum"]
            if one.get("type") in ("integer", "number", "boolean"):
                yield section, name, "a word"
            if "enum" in one:
                yield section, name, "none of these"


@pytest.mark.parametrize("model", ["knet", "solov2", "contrastmask", "freesolo"])
def test_no_mistake_is_told_in_the_validators_words(model: str) -> None:
    schema = find_model(model).training.model_json_schema()
    bounds = list(_every_bound(schema))
    assert len(bounds) > 50
    for section, name, value in bounds:
        with pytest.raises(UserError) as caught:
            load_training_config(model, overrides=[f"{section}.{name}={value}"])
        said = str(caught.value)
        assert f"{section}.{name}" in said
        assert " does not fit" not in said
        assert not re.search(r"[Ii]nput should|valid (integer|number)|unable to parse|greater than or equal", said)
