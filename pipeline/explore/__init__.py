"""A local page on which one sees what a seed sees."""
