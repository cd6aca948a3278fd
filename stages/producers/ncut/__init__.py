"""Masks by normalised cuts of the cells' affinities: MaskCut, and one cut for all."""
