"""Masks of other programs, found image by image: one file a format."""
