"""Pseudo-labels for instance segmentation from unlabeled photographs."""

__version__ = "0.1.0"
