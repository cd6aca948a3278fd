"""What Saliency Prompt adds to a model: a projection in pre-training, and nothing after it."""

from typing import Any

import pytest

from saliency_prompt.pipeline.training.model import build_model
from saliency_prompt.schemas.training.registry import load_pretraining_config, load_training_config
from saliency_prompt.stages.instances.training import detector_state
from saliency_prompt.stages.recipes.saliency_prompt import SaliencyPrompt
from tiny_backbone import TinyBackbone

SMALL = ["model.queries=6", "model.channels=32", "model.hidden=32"]


class Nothing:
    """A data set of so many images that nobody looks at."""

    def __len__(self) -> int:
        return 8

    def load(self, index: int, size: tuple[int, int]) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize("host", ["knet", "queryinst", "mask2former"])
def test_prompts_bring_one_projection_and_leave_nothing(host: str) -> None:
    config = load_pretraining_config(host, "tiny", overrides=SMALL)
    recipe = SaliencyPrompt(build_model(config, TinyBackbone(), 1), config, Nothing(), seed_channels=24)
    added = {name for name in recipe.state_dict() if not name.startswith("host.")}
    assert added == {"projection.weight", "projection.bias"}

    tuned = build_model(load_training_config(host, "tiny", overrides=SMALL), TinyBackbone(), 1).state_dict()
    kept = detector_state(recipe.state_dict())
    assert {name: value.shape for name, value in kept.items()} == {name: value.shape for name, value in tuned.items()}


@pytest.mark.parametrize("setting", ["prompt.kernel_weight=0", "prompt.target=fixed"])
def test_no_kernel_loss_or_a_fixed_target_is_nothing_to_train(setting: str) -> None:
    config = load_pretraining_config("knet", "tiny", overrides=[*SMALL, setting])
    recipe = SaliencyPrompt(build_model(config, TinyBackbone(), 1), config, Nothing(), seed_channels=24)
    assert all(name.startswith("host.") for name, p in recipe.named_parameters() if p.requires_grad)
