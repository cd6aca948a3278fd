"""Pseudo-labels for instance segmentation from unlabeled photographs, and models trained on them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .pipeline.api import (
        evaluate,
        generate,
        list_backbones,
        list_models,
        list_producers,
        list_recipes,
        load_backbone,
        load_model,
        open_dataset,
        propose,
        train,
    )
    from .schemas.errors import UserError
    from .stages.instances.reader import PseudoLabelDataset, ShuffledStream

# Where each name lives: imported when it is first asked for, so that nobody waits for torch who does not need it.
_PLACES = {
    "PseudoLabelDataset": "stages.instances.reader",
    "ShuffledStream": "stages.instances.reader",
    "UserError": "schemas.errors",
    "evaluate": "pipeline.api",
    "generate": "pipeline.api",
    "list_backbones": "pipeline.api",
    "list_models": "pipeline.api",
    "list_producers": "pipeline.api",
    "list_recipes": "pipeline.api",
    "load_backbone": "pipeline.api",
    "load_model": "pipeline.api",
    "open_dataset": "pipeline.api",
    "propose": "pipeline.api",
    "train": "pipeline.api",
}

__all__ = [
    "PseudoLabelDataset",
    "ShuffledStream",
    "UserError",
    "__version__",
    "evaluate",
    "generate",
    "list_backbones",
    "list_models",
    "list_producers",
    "list_recipes",
    "load_backbone",
    "load_model",
    "open_dataset",
    "propose",
    "train",
]


def __getattr__(name: str) -> Any:
    """One of the names above."""
    if name in _PLACES:
        return getattr(import_module(f".{_PLACES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The names above."""
    return __all__
