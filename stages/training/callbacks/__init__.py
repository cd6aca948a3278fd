"""One concern of the loop each, in the order in which `fit` calls them."""
