"""A data set as pages that a person wants to open."""
