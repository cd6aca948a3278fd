"""Configurations of producers: one file each, and what all of them share in `base.py`."""
