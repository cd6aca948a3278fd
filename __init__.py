"""Pseudo-labels for instance segmentation from unlabeled photographs."""

from .version import __version__

__all__ = ["__version__"]
