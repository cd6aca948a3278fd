"""Mask2Former for instance segmentation (Cheng et al., CVPR 2022), behind the seam of `models.queries.host`."""
