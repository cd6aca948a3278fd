"""The training harness: one loop for all recipes, which it does not know."""
