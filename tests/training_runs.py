"""Training jobs as tests start them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from saliency_prompt.pipeline.training.job import Inputs, TrainingJob
from saliency_prompt.schemas.training.densecl import load_densecl_config
from saliency_prompt.schemas.training.registry import load_pretraining_config, load_training_config
from saliency_prompt.stages.training.fit import Control, Outcome, Place

CPU = torch.device("cpu")


def densecl(
    photos: Path | str, out: Path, overrides: Sequence[str], *, resume: bool = False, processes: int = 1, **control: Any
) -> Outcome:
    config = load_densecl_config(overrides=overrides)
    job = TrainingJob("densecl", config, Inputs(photos=str(photos)), out, resume)
    return job.run(Place(CPU, processes), Control(**control))


def pretrain(
    dataset: str,
    out: Path,
    overrides: Sequence[str],
    *,
    model: str = "knet",
    weights: str = "random",
    images: str | None = None,
    resume: bool = False,
    processes: int = 1,
    **control: Any,
) -> Outcome:
    config = load_pretraining_config(model, "tiny", overrides=overrides)
    inputs = Inputs(dataset=dataset, images=images, weights=weights)
    job = TrainingJob("saliency-prompt", config, inputs, out, resume)
    return job.run(Place(CPU, processes), Control(**control))


def train(
    out: Path,
    overrides: Sequence[str],
    *,
    model: str = "knet",
    preset: str = "tiny",
    resume: bool = False,
    processes: int = 1,
    control: dict[str, Any] | None = None,
    **inputs: Any,
) -> Outcome:
    config = load_training_config(model, preset, overrides=overrides)
    texts = {key: str(value) if isinstance(value, Path) else value for key, value in inputs.items()}
    job = TrainingJob("supervised", config, Inputs(**texts), out, resume)
    return job.run(Place(CPU, processes), Control(**(control or {})))
