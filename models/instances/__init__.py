"""What query-based instance segmentation models share: the seam for prompts, pooling, assignment, losses."""
