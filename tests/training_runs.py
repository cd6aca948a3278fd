"""Training jobs as tests start them."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from safetensors.torch import save_file

from saliency_prompt.models.backbones.registry import build_backbone
from saliency_prompt.pipeline.training.job import Inputs, TrainingJob
from saliency_prompt.schemas.training.densecl import load_densecl_config
from saliency_prompt.schemas.training.registry import find_model, load_pretraining_config, load_training_config
from saliency_prompt.stages.training.fit import Control, Outcome, Place

CPU = torch.device("cpu")


@cache
def small_weights() -> str:
    """A file of random weights of the smallest backbone: the registered `random` is a ResNet-50."""
    torch.manual_seed(0)
    path = Path(mkdtemp()) / "resnet18.safetensors"
    save_file(build_backbone("resnet18").state_dict(), path)
    return str(path)


def densecl(photos: Path | str, out: Path, overrides: Sequence[str], *, processes: int = 1, **control: Any) -> Outcome:
    config = load_densecl_config(overrides=overrides)
    job = TrainingJob("densecl", config, Inputs(photos=str(photos)), out)
    return job.run(Place(CPU, processes), Control(**control))


def pretrain(
    dataset: str,
    out: Path,
    overrides: Sequence[str],
    *,
    model: str = "knet",
    weights: str | None = None,
    images: str | None = None,
    processes: int = 1,
    **control: Any,
) -> Outcome:
    config = load_pretraining_config(model, "tiny", overrides=overrides)
    inputs = Inputs(dataset=dataset, images=images, weights=weights or small_weights())
    job = TrainingJob("saliency-prompt", config, inputs, out)
    return job.run(Place(CPU, processes), Control(**control))


def train(
    out: Path,
    overrides: Sequence[str],
    *,
    model: str = "knet",
    preset: str = "tiny",
    processes: int = 1,
    control: dict[str, Any] | None = None,
    **inputs: Any,
) -> Outcome:
    config = load_training_config(model, preset, overrides=overrides)
    if "start" not in inputs:
        inputs.setdefault("weights", small_weights())
    texts = {key: str(value) if isinstance(value, Path) else value for key, value in inputs.items()}
    job = TrainingJob(find_model(model).recipe, config, Inputs(**texts), out)
    return job.run(Place(CPU, processes), Control(**(control or {})))
