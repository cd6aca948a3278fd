"""Masks of regions that hold together: superpixels, merged bottom-up by features, colour and edges."""
