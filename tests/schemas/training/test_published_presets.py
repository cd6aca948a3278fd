"""What Saliency Prompt's section 4.1 says of fine-tuning, on every model and data set."""

import pytest

from saliency_prompt.schemas.section import identity
from saliency_prompt.schemas.training.registry import load_pretraining_config, load_training_config

HOSTS = ("knet", "queryinst", "mask2former")


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("data", ["coco", "cityscapes", "ctw1500"])
def test_fine_tuning(host: str, data: str) -> None:
    config = load_training_config(host, f"sp-{data}")
    assert config.data.batch_size == 96
    assert config.learning_rate == pytest.approx(1e-4)
    assert config.data.flip == 0.5
    assert config.data.rotate > 0
    epochs = {"coco": 48, "cityscapes": 24, "ctw1500": 96 if host == "knet" else 20}[data]
    assert config.trainer.max_epochs == epochs
    assert config.data.repeat == (8 if data == "cityscapes" else 1)
    smaller = load_training_config(host, f"sp-{data}", overrides=["data.batch_size=12"])
    assert smaller.learning_rate == pytest.approx(1e-4 / 8)


@pytest.mark.parametrize("host", ["knet", "queryinst"])
def test_cityscapes_has_several_scales(host: str) -> None:
    data = load_training_config(host, "sp-cityscapes").data
    assert (min(data.short_sides), max(data.short_sides), data.long_side) == (800, 1024, 2048)


@pytest.mark.parametrize("host", HOSTS)
def test_pre_training(host: str) -> None:
    config = load_pretraining_config(host, "sp-coco")
    frozen = "stem" if host == "queryinst" else "all"  # its authors train the rest at a tenth of the rate
    assert (config.data.batch_size, config.model.freeze, config.trainer.max_epochs) == (96, frozen, 12)
    assert config.learning_rate == pytest.approx(1e-4)


def test_fields_that_came_with_imports_leave_old_runs_what_they_were() -> None:
    assert "dynamic_channels" not in identity(load_training_config("queryinst"))["model"]
    assert "encoder_points" not in identity(load_training_config("mask2former"))["model"]
