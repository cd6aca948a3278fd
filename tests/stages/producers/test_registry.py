import pytest

from saliency_prompt.schemas.labels.base import LabelConfig
from saliency_prompt.schemas.registry import PRODUCERS, load_label_config, parse_label_config, producer_of
from saliency_prompt.stages.producers.registry import LOADERS


def test_every_producer_can_be_configured_and_loaded() -> None:
    assert set(LOADERS) == set(PRODUCERS)


@pytest.mark.parametrize(("name", "preset"), [(n, p) for n, spec in PRODUCERS.items() for p in spec.presets])
def test_presets_are_valid_survive_json_and_lead_back_to_their_producer(name: str, preset: str) -> None:
    config = load_label_config(name, preset)
    assert isinstance(config, LabelConfig)
    assert producer_of(config) == name
    assert parse_label_config(name, config.model_dump(mode="json")) == config
    assert config.compression_level >= 1
    assert config.words
