"""Configurations of what is trained, one file each."""
