"""The annotation engine: photographs to masks with texts, by a chain of models."""
