"""Query-based instance segmentation, and what its models share: the seam for prompts, and the kernel loss."""
