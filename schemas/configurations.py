"""Every configuration there is, by the command that takes it, and whose a key is."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel

from .explain import valid_keys
from .registry import PRODUCERS
from .section import Section
from .training.densecl import DenseCLConfig
from .training.registry import MODELS
from .training.unilseg import UniLSegTraining

_COMMANDS = {
    "saliency": "generate",
    "detector": "generate --model RUN",
    "imported": "import-masks",
    "annotate": "annotate",
}


@dataclass(frozen=True, slots=True)
class Configuration:
    """One of them: `shown` follows `config show`, `command` takes it."""

    shown: str
    command: str
    model: type[Section]


def configurations() -> Iterator[Configuration]:
    """All of them, in the order of registries."""
    for name, producer in PRODUCERS.items():
        yield Configuration(name, _COMMANDS.get(name, f"generate --producer {name}"), producer.config)
    for name, spec in MODELS.items():
        yield Configuration(name, f"train --model {name}", spec.training)
        if spec.pretraining is not None:
            yield Configuration(f"{name} --pretrain", f"pretrain --model {name}", spec.pretraining)
    yield Configuration("unilseg", "train --model unilseg", UniLSegTraining)
    yield Configuration("densecl", "densecl", DenseCLConfig)


def key_elsewhere(key: str, model: type[BaseModel]) -> tuple[str, list[str]] | None:
    """A dotted key that is of other commands than `model`'s, and these.

    It is that key, or the nearest one of a section that `model` does not have; None if there is none.
    """
    others = [one for one in configurations() if one.model is not model]
    section = key.partition(".")[0]
    found = key
    if not any(key in valid_keys(one.model) for one in others):
        if section in model.model_fields:
            return None
        inside = [k for one in others if section in one.model.model_fields for k in valid_keys(one.model)]
        close = difflib.get_close_matches(key, [k for k in inside if k.startswith(f"{section}.")], n=1, cutoff=0.5)
        if not close:
            return None
        found = close[0]
    return found, [one.command for one in others if found in valid_keys(one.model)]
