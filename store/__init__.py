"""Floor 2: the data-set format on local disk and object stores, and the weights cache."""
