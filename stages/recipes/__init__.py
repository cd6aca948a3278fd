"""What is trained: a recipe each, which knows no other."""
