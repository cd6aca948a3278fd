"""Floor 2: networks. `torch.nn` only: no files, no configuration files, no Ray."""
