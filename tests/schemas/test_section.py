"""What makes a configuration what it is, and that fields which come later lock nobody out."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from saliency_prompt.schemas.labels.saliency import Config, FeaturesConfig
from saliency_prompt.schemas.load import parse_settings
from saliency_prompt.schemas.manifest import fingerprint
from saliency_prompt.schemas.section import FREE, Section, adopt, auto, identity, resolve, since

CARDS = Path(__file__).with_name("cards")  # written by version 0.1.0


def card(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CARDS / f"{name}.json").read_text())
    return found


class Inner(Section):
    old: int = 1
    new: tuple[int, ...] = Field((), json_schema_extra=since("9.9"))
    place: str = Field("here", json_schema_extra=FREE)


class Outer(Section):
    inner: Inner = Inner()
    later: Inner = Field(Inner(), json_schema_extra=since("9.9"))
    maybe: Inner | None = None


def test_later_fields_count_only_where_they_say_something() -> None:
    assert identity(Outer()) == {"inner": {"old": 1}, "maybe": None}
    assert identity(Outer(inner=Inner(new=(1, 2), place="there"))) == {
        "inner": {"old": 1, "new": [1, 2]},
        "maybe": None,
    }
    changed = identity(Outer(later=Inner(old=2), maybe=Inner()))
    assert changed == {"inner": {"old": 1}, "later": {"old": 2}, "maybe": {"old": 1}}


def test_a_default_is_a_default_however_it_came() -> None:
    said = Outer.model_validate({"inner": {"new": []}, "later": {"old": 1, "new": [], "place": "elsewhere"}})
    assert identity(said)["inner"] == {"old": 1}
    assert "later" not in identity(said)


class LaterFeatures(FeaturesConfig):
    registers: int = Field(0, ge=0, json_schema_extra=since("9.9"))


class LaterConfig(Config):
    features: LaterFeatures = LaterFeatures()
    another: Inner = Field(Inner(), json_schema_extra=since("9.9"))


@pytest.mark.parametrize("model", [Config, LaterConfig])
def test_the_card_of_a_data_set_of_before_has_the_fingerprint_it_had(model: type[Config]) -> None:
    before = card("dataset")
    config = parse_settings(model, before["config"])
    assert fingerprint(identity(config), before["weights_sha256"]) == before["fingerprint"]
    moved = config.model_copy(update={"features": config.features.model_copy(update={"weights": "elsewhere"})})
    assert fingerprint(identity(moved), before["weights_sha256"]) == before["fingerprint"]


def test_a_later_field_that_says_something_is_another_configuration() -> None:
    before = card("dataset")
    values = {**before["config"], "features": {**before["config"]["features"], "registers": 4}}
    config = parse_settings(LaterConfig, values)
    assert fingerprint(identity(config), before["weights_sha256"]) != before["fingerprint"]


def test_values_as_dumped_are_those_of_before_and_the_defaults_of_later_fields() -> None:
    before = card("dataset")["config"]
    config = parse_settings(Config, before)
    assert identity(config).keys() == before.keys()

    def pruned(now: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
        return {k: pruned(now[k], v) if isinstance(v, dict) else now[k] for k, v in old.items()}

    assert json.dumps(pruned(config.model_dump(mode="json"), before)) == json.dumps(before)


class Automatic(Section):
    precision: str = Field("auto", json_schema_extra=auto("precision"))
    size: int = Field(0, json_schema_extra=auto("batch_size"))
    inner: Inner = Inner()


class Nested(Section):
    first: Automatic = Automatic()


def test_auto_is_filled_from_facts_where_nothing_was_said() -> None:
    config = Nested(first=Automatic(size=3))
    assert resolve(config, {"precision": "bf16", "batch_size": 8}).first == Automatic(precision="bf16", size=3)
    assert resolve(config, {"old": 5}) == config


def test_auto_is_adopted_from_what_is_stored() -> None:
    stored = Nested(first=Automatic(precision="fp16", size=7, inner=Inner(old=9)))
    asked = Nested(first=Automatic(precision="fp32"))
    assert adopt(asked, stored).first == Automatic(precision="fp32", size=7)
