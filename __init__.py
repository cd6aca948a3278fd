"""Pseudo-labels for instance segmentation from unlabeled photographs."""

from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .stages.instances.reader import PseudoLabelDataset, ShuffledStream

__all__ = ["PseudoLabelDataset", "ShuffledStream", "__version__"]


def __getattr__(name: str) -> Any:
    """The readers, without importing torch for those who don't want them."""
    if name in ("PseudoLabelDataset", "ShuffledStream"):
        from .stages.instances import reader

        return getattr(reader, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
