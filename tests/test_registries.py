"""Every registry says the same as the others that name the same things."""

from typing import get_args

import pytest

from saliency_prompt.models.backbones.registry import BACKBONES
from saliency_prompt.models.detector import Detector
from saliency_prompt.models.queries.host import QueryHost
from saliency_prompt.models.queries.prompts import ASSIGNERS
from saliency_prompt.models.registry import DETECTORS, build_detector
from saliency_prompt.pipeline.training.recipes import RECIPES, find_recipe
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.training.registry import MODELS, load_pretraining_config, load_training_config
from saliency_prompt.schemas.training.sections import PromptConfig


def test_detectors_and_their_configurations_have_the_same_names() -> None:
    assert set(DETECTORS) == set(MODELS)


def test_assigners_are_those_of_the_configuration() -> None:
    assert {*ASSIGNERS, "none"} == set(get_args(PromptConfig.model_fields["assigner"].annotation))


@pytest.mark.parametrize("name", MODELS)
def test_every_preset_is_valid_and_names_its_model(name: str) -> None:
    spec = MODELS[name]
    assert "tiny" in spec.presets
    for preset in spec.presets:
        assert load_training_config(name, preset).model.host == name
    for preset in spec.pretrain_presets or ():
        assert load_pretraining_config(name, preset).model.host == name


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_built_from_its_configuration(name: str) -> None:
    config = load_training_config(name, "tiny")
    model = build_detector(config, BACKBONES["resnet18"].build(False), 3)
    assert isinstance(model, Detector)
    assert model.num_classes == 3
    assert model.class_layers()
    names = list(model.state_dict())
    assert all(any(tensor.startswith(prefix) for tensor in names) for prefix in model.class_layers())
    assert isinstance(model, QueryHost) == (MODELS[name].pretraining is not None)


def test_unknown_names_are_told_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="knet"):
        load_training_config("yolo")
    with pytest.raises(UserError, match="has no queries"):
        load_pretraining_config("maskrcnn")
    with pytest.raises(UserError, match="supervised"):
        find_recipe("magic")
    assert set(RECIPES) >= {"densecl", "saliency-prompt", "supervised"}
