"""Pseudo-labels for instance segmentation from unlabeled photographs."""

from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .stages.instances.reader import PseudoLabelDataset

__all__ = ["PseudoLabelDataset", "__version__"]


def __getattr__(name: str) -> Any:
    """`PseudoLabelDataset`, without importing torch for those who don't want it."""
    if name == "PseudoLabelDataset":
        from .stages.instances.reader import PseudoLabelDataset

        return PseudoLabelDataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
