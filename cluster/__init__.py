"""Floor 5: everything that knows Ray."""
