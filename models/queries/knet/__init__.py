"""K-Net for instance segmentation (Zhang et al., NeurIPS 2021), behind the seam of `models.queries.host`."""
