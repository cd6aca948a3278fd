"""Training a backbone with DenseCL: photographs, two views, the loop, its diagnostics, and what is exported."""
