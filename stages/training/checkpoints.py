"""Checkpoints: written whole, read without trusting them."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from ...schemas.errors import UserError
from ...store.run import LAST, PREVIOUS, Run

STEP, AVERAGED = "recipe_step", "averaged"
_STEPS = (STEP, "densecl_step", "instance_step")  # the other two were written until version 0.1
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """The tensors and numbers of a file: on the CPU. `step` counts micro steps."""

    state: dict[str, Tensor]
    optimizer: dict[str, Any]
    plugins: dict[str, Any]
    step: int
    averaged: dict[str, Tensor] | None


def save_checkpoint(trainer: lightning.Trainer, run: Run) -> None:
    """Write the newest checkpoint, the one before becoming the previous; called by all processes together."""
    fresh = run.folder / "fresh.ckpt"
    trainer.save_checkpoint(fresh)
    if trainer.is_global_zero:
        if (run.folder / LAST).exists():
            (run.folder / LAST).replace(run.folder / PREVIOUS)
        fresh.replace(run.folder / LAST)


def read_newest(run: Run) -> Checkpoint | None:
    """The checkpoint to go on from, None if there is none; the previous one, with a warning, if the newest is damaged.

    Raises UserError if none that is there can be read.
    """
    trouble: UserError | None = None
    for path in run.checkpoints():
        try:
            found = read_checkpoint(path)
        except UserError as error:
            trouble = trouble or error
            continue
        if trouble is not None:
            log.warning("%s Going on from the one before, %s.", trouble, path)
        return found
    if trouble is not None:
        raise trouble
    return None


def read_checkpoint(path: Path) -> Checkpoint:
    """One file. Raises UserError, in one sentence, for whatever is not a checkpoint of ours."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"The checkpoint {path} cannot be read ({error.strerror}): check its permissions.") from None
    except Exception as error:  # torch names damage in a dozen ways
        raise UserError(
            f"The checkpoint {path} is damaged or no checkpoint ({_first_words(error)}): restore it, or start anew."
        ) from None
    missing = UserError(f"{path} is not a checkpoint of a training run: restore it, or start a new run.")
    if not isinstance(content, dict):
        raise missing
    step = next((content[name] for name in _STEPS if isinstance(content.get(name), int)), None)
    state, optimizers = content.get("state_dict"), content.get("optimizer_states")
    if step is None or not isinstance(state, dict) or not isinstance(optimizers, list) or not optimizers:
        raise missing
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise missing
    plugins = {name: value for name, value in content.items() if isinstance(value, dict)}
    return Checkpoint(state, optimizers[0], plugins, step, content.get(AVERAGED))


def _first_words(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:80]}" if text else type(error).__name__
