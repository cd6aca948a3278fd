"""QueryInst (Fang et al., ICCV 2021), behind the seam of `models.queries.host`."""
