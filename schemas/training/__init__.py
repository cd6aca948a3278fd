"""Configuration of what is trained, one file for each model or recipe."""
