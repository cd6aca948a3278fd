"""Feature extractors, each in a file of its own; `registry.py` names them."""
